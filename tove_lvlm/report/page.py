"""The report as one HTML page that needs nothing beside it, and where it may be written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import UserError
from ..storage import atomic_file, clear_leftovers, refuse_inputs, told_disk_errors
from ..viz.style import new_figure
from .examples import Examples
from .findings import Evaluation, Measured
from .markup import Figures, anchor, element, escaped, joined
from .model_sections import demos, evaluations, gates, usage
from .reading import Run
from .run_sections import configuration, curves, summary, versions
from .stylesheet import stylesheet

MARK = '<meta name="generator" content="tove report">'
"""Stands in the first lines of every report: what has it may be replaced by another."""
_BEGINNING = 1000
"""Bytes in which the mark is looked for."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """All that a report shows."""

    runs: Sequence[Run]
    """At least one."""
    evaluations: Sequence[Evaluation] = ()
    examples: Sequence[Examples] = ()
    """One for each evaluation."""
    usage: Sequence[Measured] = ()
    gates: Sequence[Measured] = ()
    demos: Sequence[Measured] = ()


def check_output(output: Path, inputs: Sequence[str | Path] = ()) -> None:
    """Refuse a place that is an input, lies in one, or holds another thing than a report; call it first.

    Args:
        output: The file to write.
        inputs: What the command reads.

    Raises:
        UserError: As above.
        ImportError: matplotlib is absent; names the extra.
    """
    refuse_inputs(output, inputs)
    if output.is_dir():
        raise UserError(f"--output `{output}` is a folder; name a file, such as {output / 'report.html'}")
    if output.exists():
        with told_disk_errors(output), open(output, "rb") as stream:
            beginning = stream.read(_BEGINNING)
        if MARK.encode() not in beginning:
            raise UserError(f"--output `{output}` exists and is no report of `tove report`; name another file")
    new_figure(1, 1)


def write_report(output: Path, contents: Contents) -> None:
    """Write the page, whole or not at all; the same contents give the same bytes.

    Args:
        output: As `check_output` allows.
        contents: What it shows.

    Raises:
        UserError: The file cannot be written.
    """
    text = page(contents)
    clear_leftovers(output.parent)  # of a command that was killed
    with told_disk_errors(output), atomic_file(output) as temporary:
        temporary.write_text(text, encoding="utf-8")


def page(contents: Contents) -> str:
    """The whole document.

    Args:
        contents: What it shows.

    Raises:
        UserError: A folder of `tove gates` is not whole.
    """
    runs, figures = contents.runs, Figures()
    sections = {
        "Summary": summary(runs),
        **curves(runs, figures),
        **demos(contents.demos),
        "Evaluations": evaluations(contents.evaluations, contents.examples),
        "Usage of the experts": usage(contents.usage, figures),
        "Gate panels": gates(contents.gates),
        "Configuration": configuration(runs),
        "Versions and hardware": versions(runs),
    }
    title = f"Training report: {', '.join(run.name for run in runs)}"
    links = [element("li", element("a", name, href=f"#{anchor(name)}")) for name in sections]
    body = joined(
        [
            element("header", [element("h1", title), element("nav", element("ul", links), aria_label="Sections")]),
            element("main", joined(sections.values(), "\n")),
        ],
        "\n",
    )
    head = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{MARK}\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n"
        # Nothing may be loaded and no script run, whatever the page shows.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<style>\n{stylesheet(figures.colors)}</style>\n</head>\n"
    )
    return f"{head}<body>\n{body}\n</body>\n</html>\n"
