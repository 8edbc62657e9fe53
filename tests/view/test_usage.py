"""Usage from the page: which files of a folder are measured, and what the figures become."""

from pathlib import Path

import pytest

from helpers.pictures import paint
from tove_lvlm.view.pictures import Example
from tove_lvlm.view.requests import Done, Failed, Usage
from tove_lvlm.view.usage import Measuring, progress_bar, table

ROW = {"gate_mass": 0.25, "first_share": 0.5, "relative_norm": 0.125, "ms": 2.5, "gflops": 0.25, "detached": False}
REPORT = {"num_images": 2, "experts": {"depth": ROW | {"loss_change": None}, "<b>": ROW | {"detached": True}}}


class Desk:
    """Keeps what it is asked, and which files it is given."""

    def __init__(self, *events):
        self.events, self.given = events, []

    def run(self, request, visitor):
        self.given = sorted(path.name for path in request.folder.iterdir())
        yield from self.events


def test_pictures_of_a_folder_are_measured_and_other_files_left_out(tmp_path):
    paint(tmp_path / "a" / "x.png", seed=0)
    paint(tmp_path / "b" / "x.png", seed=1)
    (tmp_path / "notes.txt").write_text("no picture")
    files = [str(tmp_path / name) for name in ("a/x.png", "notes.txt", "b/x.png")]
    desk = Desk(Done(done=1, total=2), Usage(report=REPORT))
    steps = list(Measuring(desk, []).run(0, files, "me"))
    assert desk.given == ["00000.png", "00001.png"]
    assert [step[3] for step in steps] == [0.0, 0.5, 1.0]
    assert "1 of 2 batches" in steps[1][0]
    assert "2 pictures." in steps[-1][0]
    assert "data:image/png" in steps[-1][2]


@pytest.mark.parametrize(
    ("files", "said"),
    [([], "Choose a folder"), (["notes.txt"], "Choose a folder"), (["broken.png"], "broken.png is no picture")],
)
def test_what_cannot_be_measured_is_said(tmp_path, files, said):
    for name in files:
        (tmp_path / name).write_text("no picture")
    desk = Desk()
    ((line, _, _, _),) = Measuring(desk, []).run(0, [str(tmp_path / name) for name in files], "me")
    assert said in line
    assert desk.given == []


def test_examples_are_measured_without_a_folder_and_a_failure_is_said(tmp_path):
    paint(tmp_path / "x.png", seed=0)
    desk = Desk(Failed(message="no gate"))
    *_, (line, _, _, _) = Measuring(desk, [Example("x.png", Path(tmp_path / "x.png"))]).run(0, None, "me")
    assert desk.given == ["00000.png"]
    assert "no gate" in line
    *_, (line, _, _, _) = Measuring(Desk(Usage(report=None)), [Example("x.png", tmp_path / "x.png")]).run(0, None, "me")
    assert "Cancelled" in line


def test_the_table_has_the_figures_and_no_markup_of_names():
    shown = table(REPORT)
    for figure in ("0.250", "50.0%", "0.125", "2.50", "0.25"):
        assert f'<td class="tove-number">{figure}</td>' in shown
    assert "<b>" not in shown
    assert "detached" in shown
    assert 'value="50"' in progress_bar(0.5)
