"""What `tove gates` writes: a panel for each image, pages for all, the figures as JSON, and one HTML file.

NNN-NAME.png    a panel
page.png        every image in a row, when there are several; page-2.png and so on after each 24
gates.json      `as_json`
index.html      means and all panels, in one file that needs nothing beside it
"""

import base64
import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..config import UserError
from ..storage import atomic_dir, refuse_inputs, save_json
from .gates import TokenGates
from .gates_plot import common_scale, gate_page, gate_panel
from .style import new_figure, save_figure

JSON_FILE, HTML_FILE = "gates.json", "index.html"
ROWS_PER_PAGE = 24
_DPI = 150
_FIGURES = {
    "gate_mass": "mean gate probability",
    "first_share": "share of tokens where it is first",
    "strength": "mean strength ||g e|| / ||t_clip||",
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1000px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; } th, td { padding: .2em 1em .2em 0; text-align: right; font-weight: normal; }
th:first-child, td:first-child { text-align: left; color: #6b6b6b; } thead th { border-bottom: 1px solid #ddd; }
figure { margin: 2em 0; } img { width: 100%; }
"""


def check_output(folder: Path, inputs: Sequence[str | Path] = ()) -> None:
    """Refuse a folder whose content is not this command's, because it is replaced as a whole; call it first.

    Args:
        folder: Where to write.
        inputs: What the command reads.

    Raises:
        UserError: There is something else, or it is in the way of an input.
        ImportError: matplotlib is absent; names the extra.
    """
    refuse_inputs(folder, inputs)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output `{folder}` is a file; expected a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / JSON_FILE).is_file():
        raise UserError(f"--output `{folder}` holds other things than `tove gates` writes; name another folder")
    new_figure(1, 1)


def write_gates(
    folder: Path,
    images: Sequence[str | Path],
    gates: Sequence[TokenGates],
    report: dict[str, Any],
    progress: Callable[[int], None] = lambda done: None,
) -> list[Path]:
    """Write everything; the folder appears whole or not at all, and takes the place of an older one.

    Args:
        folder: As `check_output` allows.
        images: Their files, for the titles.
        gates: One for each image.
        report: What goes into gates.json.
        progress: Called with the number of panels done.

    Returns:
        The files, as they lie in `folder`.
    """
    titles, scale = [Path(image).name for image in images], common_scale(gates)
    with atomic_dir(folder) as working:
        panels = []
        for number, (image, title, image_gates) in enumerate(zip(images, titles, gates, strict=True)):
            panels += save_figure(
                gate_panel(image_gates, title, scale), working / _stem(number, image), ("png",), dpi=_DPI
            )
            progress(number + 1)
        pages = []
        for start in range(0, len(gates) if len(gates) > 1 else 0, ROWS_PER_PAGE):
            rows = slice(start, start + ROWS_PER_PAGE)
            stem = working / (f"page-{start // ROWS_PER_PAGE + 1}" if start else "page")
            pages += save_figure(gate_page(gates[rows], titles[rows], scale), stem, ("png",), dpi=_DPI)
        save_json(working / JSON_FILE, report)
        (working / HTML_FILE).write_text(_html(report, titles, panels), encoding="utf-8")
        names = [file.name for file in (*panels, *pages, working / JSON_FILE, working / HTML_FILE)]
    return [folder / name for name in names]


def _stem(number: int, image: str | Path) -> str:
    """Unique for two images of the same name, in order, and short enough for any file system."""
    return f"{number:03d}-{Path(image).stem[:40]}"


def _html(report: dict[str, Any], titles: Sequence[str], panels: Sequence[Path]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in report["experts"])
    body = "".join(
        f"<tr><td>{caption}</td>"
        + "".join(f"<td>{report['mean'][figure][name]:.3f}</td>" for name in report["experts"])
        + "</tr>"
        for figure, caption in _FIGURES.items()
    )  # fmt: skip
    shown = "".join(
        f'<figure><img alt="{html.escape(title)}" src="data:image/png;base64,'
        f'{base64.b64encode(panel.read_bytes()).decode("ascii")}"></figure>\n'
        for title, panel in zip(titles, panels, strict=True)
    )
    detached = f"<p>Detached: {html.escape(', '.join(report['detached']))}.</p>" if report["detached"] else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>tove gates</title>'
        f"<style>{_STYLE}</style></head><body><h1>Who is asked, token by token</h1>"
        f"<p>{html.escape(report['checkpoint'])}, images: {len(titles)}</p>"
        f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>{detached}\n{shown}</body></html>\n"
    )
