"""Label files and answers of every evaluation task, through `tove eval TASK --answers`.

The caption metrics start Java for seconds: for those tasks the three functions that do are replaced, and only they. A
score that is accepted is written as it is printed, is the same when it is made twice, and lies in its metrics' range.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st

import tove_lvlm.eval.tasks  # noqa: F401  fills TASKS
from tove_lvlm.eval.tasks.base import TASKS

from ..mutate import byte_edits, edited, edited_bytes, json_edits, rarely
from ..property import Target, tove

_PEOPLE = [{"answer": "bus"}] * 9 + [{"answer": "car"}]
_POPE = [
    {"question_id": 1, "image": "a.jpg", "text": "Is it?", "label": "yes"},
    {"question_id": 2, "image": "b.jpg", "text": "Is it not?", "label": "no"},
]
_VQA_QUESTION = {"question_id": 1, "image_id": 3, "question": "Is it?"}
_VQA_ANNOTATION = {"question_id": 1, "answers": _PEOPLE, "question_type": "is it", "answer_type": "yes/no"}
_TEXT = {"question_id": 1, "image_id": "a", "question": "What?", "answers": _PEOPLE, "ocr_tokens": ["A", "B"]}
_VIZWIZ = {"image": "a.jpg", "question": "?", "answers": _PEOPLE, "answer_type": "other", "answerable": 1}
_GQA = {"question": "?", "imageId": "3", "answer": "yes", "types": {"structural": "query", "semantic": "rel"}}
_VSR = {"image": "a.jpg", "caption": "A cat.", "label": 1, "relation": "on"}
_COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "domain": "in-domain"}, {"id": 2, "file_name": "b.jpg"}],
    "annotations": [{"id": 3, "image_id": 1, "caption": "A cat."}, {"id": 4, "image_id": 2, "caption": "A dog."}],
}
_OWN = {"question_id": "1", "image": "a.png", "text": "What?", "answer": "bus", "family": "naming"}
_EASY = [["is there a circle?", "yes", 0], ["what shape?", "circle", 0]]
_KARPATHY = {"images": [{"cocoid": 1, "filename": "a.jpg", "split": "test", "sentences": [{"raw": "A cat."}]}]}
LABELS: dict[str, list[dict[str, Any]]] = {
    "coco_caption": [{"c.json": _COCO}, {"c.json": _KARPATHY}, {"c.json": [{"image": "v/1.jpg", "caption": ["A."]}]}],
    "easyvqa": [{"questions.json": _EASY}],
    "gqa": [{"g.json": {"1": _GQA, "2": {**_GQA, "answer": "no"}}}],
    "nocaps": [{"n.json": _COCO}],
    "pope": [{"random.json": _POPE}, {"coco_pope_random.json": _POPE, "coco_pope_popular.json": _POPE}],
    "questions": [{"q.jsonl": [_OWN, {**_OWN, "question_id": "2", "family": "other"}]}],
    "questions_likelihood": [{"q.jsonl": [{**_OWN, "choices": ["bus", "yes"]}]}],
    "textvqa": [{"t.json": {"data": [_TEXT]}}],
    "textvqa_ocr": [{"t.json": {"data": [_TEXT]}, "l.json": [{"question_id": "a", "image": "a.jpg", "text": "What?"}]}],
    "vizwiz": [{"v.json": [_VIZWIZ, {**_VIZWIZ, "image": "b.jpg", "answerable": 0}]}],
    "vqav2": [
        {
            "q.json": {"data_subtype": "val2014", "questions": [_VQA_QUESTION]},
            "a.json": {"annotations": [_VQA_ANNOTATION]},
        },
        {"q.jsonl": [{"question_id": 1, "image": "a.jpg", "text": "Is it?"}]},
    ],
    "vsr": [{"t.jsonl": [_VSR, {**_VSR, "label": 0}]}],
    "vsr_likelihood": [{"t.json": [_VSR]}],
}
"""Task -> forms of its label files: name -> what it holds."""
ANSWERS = (
    [{"question_id": 1, "prompt": "?", "text": "yes"}, {"question_id": 2, "text": "no"}],
    [{"questionId": "1", "prediction": "bus"}],
    [{"image": "a.jpg", "answer": "bus"}, {"image": "b.jpg", "answer": "unanswerable"}],
    [{"image_id": 1, "caption": "a cat"}, {"image_id": 2, "caption": "a dog"}],
    [{"question": "?", "answer": "yes"}],
)
CASES = st.fixed_dictionaries(
    {
        "task": st.sampled_from(TASKS.names()),
        "form": st.integers(0, 5),
        "labels": json_edits("yes", "no", "bus", "test", 1, _PEOPLE, "in-domain", max_size=2),
        "answers_form": st.integers(0, len(ANSWERS) - 1),
        "answers": json_edits("yes", "No.", "unanswerable", "1" * 5000, max_size=2),
        "label_bytes": rarely(byte_edits(2), []),
        "answer_bytes": rarely(byte_edits(2), []),
        "convention": st.integers(-3, 5),
        "prompt": rarely(st.sampled_from(["{question}", "{", "{0}", "{question.x}", "{question!z}", "x", ""]), None),
        "strict": rarely(st.just(True), False),
        "output": st.booleans(),
    }
)


def _labels(case: dict[str, Any]) -> dict[str, Any]:
    forms = LABELS[case["task"]]
    return forms[case["form"] % len(forms)]


def _write(case: dict[str, Any], folder: Path) -> None:
    contents = edited(_labels(case), case["labels"])
    for name in _labels(case):
        content = contents.get(name) if isinstance(contents, dict) else contents
        (folder / name).write_bytes(edited_bytes(_text(name, content), case["label_bytes"]))
    answers = _text("a.jsonl", edited(ANSWERS[case["answers_form"]], case["answers"]))
    (folder / "answers.jsonl").write_bytes(edited_bytes(answers, case["answer_bytes"]))


def _text(name: str, content: Any) -> bytes:
    if name.endswith(".jsonl") and isinstance(content, list):
        return "".join(json.dumps(row) + "\n" for row in content).encode()
    return json.dumps(content).encode()


def _act(case: dict[str, Any], inputs: Path, output: Path) -> dict[str, Any]:
    conventions = TASKS.get(case["task"]).conventions
    chosen = case["convention"]
    options = ["--convention", conventions[chosen % len(conventions)]] if chosen >= 0 else []
    options += ["--prompt", case["prompt"]] if case["prompt"] is not None else []
    options += ["--strict"] if case["strict"] else []
    options += ["--output", str(output)] if case["output"] else []
    labels = [str(inputs / name) for name in _labels(case)]
    with _no_java():
        out = tove("eval", case["task"], "--answers", inputs / "answers.jsonl", "--json", *options, "--labels", *labels)
    return json.loads(out, parse_constant=_no_constant)


def _no_java():
    """Tokens by blanks, METEOR as the share of words that a reference has, and no SPICE."""

    def meteor(candidates, references, parts):
        shares = [
            len({*said.split()} & {*" ".join(others).split()}) / max(1, len({*said.split()}))
            for said, others in zip(candidates, references, strict=True)
        ]
        return [sum(shares[index] for index in part) / len(part) for part in parts]

    return mock.patch.multiple(
        "tove_lvlm.eval.metrics.caption_java",
        tokenize=lambda texts: [" ".join(text.lower().strip(" .").split()) for text in texts],
        meteor=meteor,
        missing_for_spice=lambda: "SPICE is left out here",
    )


def _no_constant(name: str) -> None:
    raise AssertionError(f"the record has {name} in it")


def _accepted(case: dict[str, Any], inputs: Path, output: Path, record: dict[str, Any]) -> None:
    assert record["task"] == case["task"]
    assert record["num_items"] > 0
    digest = hashlib.sha256((inputs / "answers.jsonl").read_bytes()).hexdigest()
    assert record["answers"]["sha256"] == digest
    assert not (case["strict"] and record["problems"]), "problems were found and --strict did not refuse"
    for metrics in (record["metrics"], *record["groups"].values()):
        _check_metrics(metrics, record["num_items"])
    if case["output"]:
        assert json.loads((output / "record.json").read_text(encoding="utf-8")) == record
        assert {path.name for path in output.iterdir()} <= {"record.json", "upload.json"}
        if "upload" in record["answers"]:
            assert len(json.loads((output / "upload.json").read_text(encoding="utf-8"))) == record["num_items"]
    else:
        assert not output.exists()
    again = _act({**case, "output": False}, inputs, output) if record["metrics"] else {}
    assert all(again.get(key) == record[key] for key in ("metrics", "groups", "problems") if again)


def _check_metrics(metrics: dict[str, Any], num_items: int) -> None:
    for name, value in metrics.items():
        assert math.isfinite(value), f"{name} is {value}"
        highest = num_items if name in ("n", "tp", "fp", "tn", "fn", "undecided") else 10 if name == "CIDEr" else 100
        assert 0 <= value <= highest, f"{name} is {value}"
    if "undecided" in metrics:
        assert sum(metrics[name] for name in ("tp", "fp", "tn", "fn", "undecided")) == metrics["n"]


assert set(LABELS) == set(TASKS.names()), "a task has no cases"
TARGET = Target(name="answers", cases=CASES, write=_write, act=_act, accepted=_accepted)
