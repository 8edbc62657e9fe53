"""The styles of the page: light or dark as the reader's system is, one column on a phone, black on white on paper."""

from collections.abc import Iterable

from .theme import DARK, LIGHT, variables

_STYLE = """
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 86rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: .5rem; border-top: 1px solid var(--grid); }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
a { color: var(--link); }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
nav ul, .legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0; margin: .5rem 0; }
.legend { font-size: .875rem; }
.swatch { display: inline-block; width: 1.1em; height: .7em; margin-right: .4em; border-radius: 2px; }
.soft, figcaption .soft { color: var(--soft); font-size: .875rem; }
.scroll { overflow-x: auto; } .scroll + .scroll { margin-top: 1.25rem; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { text-align: left; vertical-align: top; padding: .25rem 1.25rem .25rem 0; font-weight: normal;
  border-bottom: 1px solid var(--grid); max-width: 34rem; overflow-wrap: break-word; white-space: pre-wrap; }
thead th { color: var(--soft); border-bottom-width: 2px; }
tbody th { color: var(--soft); min-width: 8.5rem; }
.differs th, .differs td { background: var(--mark); color: var(--ink); font-weight: 600; }
.plots { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 23rem), 1fr)); }
figure { margin: 0; } figcaption { font-weight: 600; font-size: .9375rem; }
.plot svg { width: 100%; height: auto; display: block; } .plot.wide { max-width: 60rem; margin-top: 1rem; }
.plot svg text { font-family: system-ui, sans-serif !important; }
.panel img { display: block; width: 100%; max-width: 75rem; height: auto; margin-top: .5rem; background: #ffffff; }
.examples { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr));
  list-style: none; padding: 0; margin: .5rem 0; }
.examples li { border: 1px solid var(--grid); border-radius: 6px; padding: .75rem; font-size: .875rem; }
.examples img { display: block; max-width: 100%; width: 10rem; height: auto; margin-bottom: .5rem; }
.examples p { margin: .15rem 0; white-space: pre-wrap; }
.right { color: var(--right); font-weight: 700; } .wrong { color: var(--wrong); font-weight: 700; }
"""
_PRINT = """
@page { margin: 14mm; }
@media print {
  body { padding: 0; max-width: none; font-size: 9.5pt; }
  nav { display: none; }
  .scroll { overflow: visible; }
  .plots { grid-template-columns: 1fr 1fr; }
  .examples { grid-template-columns: 1fr 1fr 1fr; }
  figure, .examples li, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .differs th, .differs td, .swatch { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""


def stylesheet(colors: Iterable[str]) -> str:
    """CSS of a page.

    Args:
        colors: Of its plots, as #rrggbb.
    """
    colors = set(colors)
    light, dark = variables(LIGHT, colors), variables(DARK, colors)
    return (
        f":root {{ color-scheme: light dark; {light} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n{_STYLE}{_PRINT}"
    )
