"""Paging: which questions are chosen, what is shown of one, and that nothing of it is markup."""

import numpy as np
import pytest
from PIL import Image

from tove_lvlm.eval.disagreements import Question, Reply, SideBySide
from tove_lvlm.view.disagreements import DISPUTED, EVERYTHING, Paging


def question(number: int, *accuracies: float | None, group: str = "a", text: str = "?", image: str = "") -> Question:
    replies = tuple(Reply(text=f"<b>{value}</b>", accuracy=value) for value in accuracies)
    return Question(question_id=str(number), image=image, text=text, group=group, gold="<i>yes</i>", replies=replies)


@pytest.fixture
def paging(tmp_path):
    Image.fromarray(np.full((600, 900, 3), 200, dtype=np.uint8)).save(tmp_path / "1.png")
    questions = (
        question(1, 1.0, 0.0, text="<script>1</script>", image="1.png"),
        question(2, 1.0, 1.0, image="absent.png"),
        question(3, 0.0, 1.0, group="b"),
        question(4, 0.0, 0.3, group="b"),
        question(5, 0.6, 0.0, image="../1.png"),
    )
    return Paging(SideBySide(task="pope", runs=("<u>clip</u>", "tove"), images=tmp_path, questions=questions))


def chosen(paging, kind, group=EVERYTHING):
    return [one.question_id for one in paging.chosen(kind, group)]


def test_questions_are_chosen_by_verdicts_and_part(paging):
    assert paging.groups == [EVERYTHING, "a", "b"]
    assert chosen(paging, DISPUTED) == ["1", "3", "5"]
    assert chosen(paging, DISPUTED, "b") == ["3"]
    assert chosen(paging, "<u>clip</u> right, tove wrong") == ["1", "5"]
    assert chosen(paging, "tove right, <u>clip</u> wrong") == ["3"]
    assert chosen(paging, "all are wrong") == ["4"]
    assert chosen(paging, "every question") == ["1", "2", "3", "4", "5"]


def test_pages_go_round(paging):
    assert paging.show(DISPUTED, EVERYTHING, 0)[:2] == (0, "1 of 3")
    assert paging.show(DISPUTED, EVERYTHING, 3)[:2] == (0, "1 of 3")
    assert paging.show(DISPUTED, EVERYTHING, -1)[:2] == (2, "3 of 3")
    assert paging.show("all are wrong", "a", 0)[:2] == (0, "0 of 0")


def test_what_is_shown_is_escaped_and_never_a_file_from_elsewhere(paging):
    first = paging.show("every question", EVERYTHING, 0).shown
    for markup in ("<script>", "<b>", "<i>", "<u>"):
        assert markup not in first
    assert "&lt;script&gt;1" in first
    assert 'src="data:image/jpeg;base64,' in first
    assert '<span class="tove-right">right</span>' in first
    assert "there is no image" in paging.show("every question", EVERYTHING, 1).shown
    assert "leaves the image folder" in paging.show("every question", EVERYTHING, 4).shown
    assert "right (60 %)" in paging.show("every question", EVERYTHING, 4).shown
