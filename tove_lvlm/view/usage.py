"""The figures of `tove usage` over some pictures, started from the page."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..data.errors import DataError
from ..viz.embedding import picture_address
from ..viz.style import rendered
from ..viz.usage import usage_figure
from . import words
from .components import gr
from .desk import Desk
from .events import QUEUED, connect_cancel, visitor
from .pictures import TEMPORARY, Example, check_upload, is_picture
from .requests import Done, Failed, MeasureUsage, Usage

MOST_PICTURES = 500
_DPI = 150
_COLUMNS = {
    "Gate mass": ("gate_mass", ".3f"),
    "First": ("first_share", ".1%"),
    "Strength": ("relative_norm", ".3f"),
    "Time, ms": ("ms", ".2f"),
    "GFLOPs": ("gflops", ".3g"),
}


class Measuring:
    """The tab.

    Args:
        desk: Asks the models.
        examples: Measured where no folder is given.
    """

    def __init__(self, desk: Desk, examples: Sequence[Example]):
        self._desk, self._examples = desk, list(examples)

    def run(self, model: int, files: Sequence[str] | None, visitor: str) -> Iterator[tuple[str, str, str, float]]:
        """Status, table, plot as HTML, and how much is done from 0 to 1.

        Args:
            model: Number of the model.
            files: Uploaded; none takes the examples.
            visitor: Gradio's session.
        """
        pictures = [path for path in map(Path, files or []) if is_picture(path)]
        if not files:
            pictures = [example.path for example in self._examples]
        if not pictures:
            yield words.status("Choose a folder with pictures in it first.", is_failure=True), "", "", 0.0
            return
        if len(pictures) > MOST_PICTURES:
            line = f"These are {len(pictures)} pictures; at most {MOST_PICTURES} are measured from this page."
            yield words.status(line, is_failure=True), "", "", 0.0
            return
        with tempfile.TemporaryDirectory(dir=os.environ.get(TEMPORARY)) as folder:
            try:
                _gather(pictures, Path(folder))
            except DataError as error:
                yield words.status(str(error), is_failure=True), "", "", 0.0
                return
            yield words.status(f"Measuring {len(pictures)} pictures ..."), "", "", 0.0
            for event in self._desk.run(MeasureUsage(model=model, folder=Path(folder)), visitor):
                match event:
                    case Done(done=done, total=total):
                        yield words.status(f"{done} of {total} batches"), "", "", done / max(total, 1)
                    case Usage(report=None):
                        yield words.status("Cancelled."), "", "", 0.0
                    case Usage(report=dict() as report):
                        yield words.status(f"{report['num_images']} pictures."), table(report), plot(report), 1.0
                    case Failed(message=message):
                        yield words.status(message, is_failure=True), "", "", 0.0

    def build(self, model: Any) -> None:
        """Put the tab's parts where gradio is building.

        Args:
            model: The page's choice of a model.
        """
        files = gr.File(
            label="A folder of pictures; without one the examples are measured",
            file_count="directory",
            height=140,
            elem_id="tove-usage-files",
        )
        with gr.Row():
            start = gr.Button("Measure", variant="primary", min_width=70, elem_id="tove-usage-start")
            stop = gr.Button("Cancel", min_width=70, elem_id="tove-usage-stop")
        bar, status = gr.HTML(progress_bar(0.0)), gr.HTML(words.status(""), elem_id="tove-usage-status")
        shown, drawn = gr.HTML("", elem_id="tove-usage-table"), gr.HTML("", elem_id="tove-usage-plot")

        def run(number, files, request: gr.Request):
            for line, figures, drawing, share in self.run(number, files, visitor(request)):
                yield line, figures, drawing, progress_bar(share)

        start.click(run, [model, files], [status, shown, drawn, bar], show_progress_on=[status], **QUEUED)
        connect_cancel(stop, self._desk)


def progress_bar(share: float) -> str:
    """How much is done.

    Args:
        share: 0 to 1.
    """
    return f'<progress class="tove-progress" aria-label="Measured" max="100" value="{100 * share:.0f}"></progress>'


def table(report: dict[str, Any]) -> str:
    """What `measure_usage` gave, as HTML."""
    rows = []
    for name, row in report["experts"].items():
        cells = ["detached", *["-"] * (len(_COLUMNS) - 1)]
        if not row["detached"]:
            cells = [format(row[key], form) for key, form in _COLUMNS.values()]
        body = "".join(f'<td class="tove-number">{cell}</td>' for cell in cells)
        rows.append(f"<tr><th scope='row'>{escape(name)}</th>{body}</tr>")
    head = "".join(f"<th scope='col'>{name}</th>" for name in ("Expert", *_COLUMNS))
    shown = f'<table class="tove-table"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="tove-scroll" tabindex="0" role="region" aria-label="Usage of each expert">{shown}</div>'


def plot(report: dict[str, Any]) -> str:
    """The picture of `tove usage`, as HTML; nothing where every expert is detached."""
    if all(row["detached"] for row in report["experts"].values()):
        return ""
    address = picture_address(rendered(usage_figure(report), _DPI))
    return f'<img alt="Usage of each expert, as bars" src="{address}" style="width:100%">'


def _gather(pictures: Sequence[Path], folder: Path) -> None:
    """Copies into one folder, with names that do not meet.

    Raises:
        DataError: A file is no picture.
    """
    for number, path in enumerate(pictures):
        check_upload(path, path.name)
        shutil.copyfile(path, folder / f"{number:05d}{path.suffix.lower()}")
