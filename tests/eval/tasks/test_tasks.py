"""What every task must have."""

import copy
import json
import subprocess
import sys

import pytest

import tove_lvlm.eval.tasks  # noqa: F401
from helpers.eval_files import write_json
from tove_lvlm.config import UserError
from tove_lvlm.eval.io.problems import Problems
from tove_lvlm.eval.tasks.base import LIKELIHOOD, TASKS


def test_importing_the_package_registers_them_and_loads_nothing_heavy():
    code = (
        "import sys, tove_lvlm.eval.tasks; from tove_lvlm.eval.tasks.base import TASKS; "
        "print(*TASKS.names()); print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    )
    names, heavy = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()
    assert {"gqa", "pope", "textvqa", "textvqa_ocr", "vizwiz", "vqav2", "vsr", "vsr_likelihood"} <= set(names.split())
    assert heavy == "set()"


@pytest.mark.parametrize("name", TASKS.names())
def test_a_task_says_what_it_is(name):
    task = TASKS.get(name)
    assert task.name == name
    assert task.about
    assert task.source
    assert len(set(task.conventions)) == len(task.conventions) >= 1
    assert ("{question}" in task.prompt) == (name not in ("coco_caption", "nocaps")), "a caption has no question"
    assert task.layouts[0].labels[0].startswith("playground/data/eval/")
    assert (task.form == LIKELIHOOD) == bool(getattr(task, "choices", ()) or getattr(task, "needs_choices", False))


PEOPLE = [{"answer": "bus"}] * 10
VSR = {"image": "a.jpg", "caption": "A cat.", "label": 1, "relation": "on"}
OWN = {"question_id": 1, "image": "a.jpg", "text": "Is it?", "answer": "yes", "family": "a"}
GOOD = {
    "pope": {"random.json": [{"question_id": 1, "image": "a.jpg", "text": "Is it?", "label": "yes"}]},
    "vqav2": {
        "q.json": {"data_subtype": "val2014", "questions": [{"question_id": 1, "image_id": 3, "question": "Is it?"}]},
        "a.json": {
            "annotations": [{"question_id": 1, "answers": PEOPLE, "question_type": "is it", "answer_type": "yes/no"}]
        },
    },
    "textvqa": {"g.json": {"data": [{"question_id": 1, "image_id": "a", "question": "What?", "answers": PEOPLE}]}},
    "textvqa_ocr": {
        "g.json": {"data": [{"question_id": 1, "image_id": "a", "question": "What?", "ocr_tokens": ["A"]}]},
        "l.json": [{"question_id": "a", "image": "a.jpg", "text": "What?"}],
    },
    "vizwiz": {
        "v.json": [{"image": "a.jpg", "question": "?", "answers": PEOPLE, "answer_type": "other", "answerable": 1}]
    },
    "gqa": {
        "g.json": {"1": {"question": "?", "imageId": "3", "answer": "yes", "types": {"structural": "query"}}},
    },
    "vsr": {"t.json": [VSR]},
    "easyvqa": {"questions.json": [["Is there a circle?", "yes", 3]]},
    "questions": {"q.json": [OWN]},
    "questions_likelihood": {"q.json": [{**OWN, "choices": ["yes", "no"]}]},
    "vsr_likelihood": {"t.json": [VSR]},
}
WRONG = [None, 5, "", [], {}, ["x"], {"a": 1}, [None]]


def data_locations(value, path=()):
    """Where something stands in a JSON value."""
    keys = value if isinstance(value, dict) else range(min(len(value), 1)) if isinstance(value, list) else ()
    for key in keys:
        yield (*path, key)
        yield from data_locations(value[key], (*path, key))


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_value_of_another_kind_anywhere_is_an_error_for_people_or_harmless(tmp_path, name):
    task, complaints = TASKS.get(name)(), []
    for place in data_locations(GOOD[name]):
        for wrong in WRONG:
            contents = copy.deepcopy(GOOD[name])
            inner = contents
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = wrong
            try:
                items = task.read([write_json(tmp_path / file, contents[file]) for file in contents], Problems())
                assert {type(value) for item in items for value in (item.image, item.text, item.group)} <= {str}
                json.dumps(task.upload(items, {}))
                score = task.score(items, {items[0].question_id: "yes"}, task.conventions[0], Problems())
                json.dumps([score.metrics, score.groups])
            except UserError as error:
                complaints.append(str(error))
    assert complaints
    assert not any("\n" in complaint for complaint in complaints)
