"""What is found of every benchmark below a folder."""

from helpers.eval_files import write_lines
from tove_lvlm.eval.benchmark import survey
from tove_lvlm.eval.tasks.base import TASKS

ROWS = [{"question_id": 1, "image": "a.jpg", "text": "Is there a dog?", "label": "yes"}]


def test_the_survey_names_every_task(tmp_path):
    (tmp_path / "output/coco").mkdir(parents=True)
    (tmp_path / "val2014").mkdir()
    write_lines(tmp_path / "output/coco/coco_pope_random.json", ROWS)
    rows = {row["task"]: row for row in survey(tmp_path)}
    assert list(rows) == TASKS.names()
    assert rows["pope"]["missing"] == []
    assert rows["pope"]["images"] == str(tmp_path / "val2014")
    assert all(row["missing"] for name, row in rows.items() if name != "pope")
    assert all(row["source"] and row["about"] for row in rows.values())
