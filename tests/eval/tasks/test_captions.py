"""COCO Captions and NoCaps: every form of label file, what is wrong with answers, the parts, the upload file."""

import json

import pytest

from helpers.requirements import needs_java
from tove_lvlm.config import UserError
from tove_lvlm.eval.io.answers import match, read_answers
from tove_lvlm.eval.io.problems import Problems
from tove_lvlm.eval.metrics import caption_java
from tove_lvlm.eval.tasks.captions import CocoCaption, NoCaps

TEXTS = {
    "1": ("a red sphere rolls away", "the red ball rolls"),
    "20": ("many blue birds sing loudly",),
    "300": ("one old man drinks tea",),
}


def _coco(**domains):
    images = [{"id": int(k), "file_name": f"COCO_val2014_{int(k):012d}.jpg"} for k in TEXTS]
    for image in images:
        image |= {"domain": domains[f"d{image['id']}"]} if domains else {}
    said = [(int(k), text) for k, texts in TEXTS.items() for text in texts]
    return {"images": images, "annotations": [{"id": n, "image_id": k, "caption": c} for n, (k, c) in enumerate(said)]}


def _written(folder, content, name="labels.json"):
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / name


def _read(task, folder, content):
    problems = Problems()
    return task().read([_written(folder, content)], problems), problems


@pytest.fixture
def quick(monkeypatch):
    """METEOR takes ten seconds to start."""
    monkeypatch.setattr(caption_java, "meteor", lambda said, known, parts: [0.5 for part in parts])


def test_all_forms_of_label_files_give_the_same_items(tmp_path):
    names = {k: f"COCO_val2014_{int(k):012d}.jpg" for k in TEXTS}
    karpathy = [
        {"cocoid": int(k), "filename": names[k], "filepath": "val2014", "split": "test"}
        | {"sentences": [{"raw": text, "tokens": []} for text in texts]}
        for k, texts in TEXTS.items()
    ]
    karpathy.insert(1, karpathy[0] | {"cocoid": 9, "split": "val"})
    lavis = [{"image": f"val2014/{names[k]}", "caption": list(texts)} for k, texts in TEXTS.items()]
    items, problems = _read(CocoCaption, tmp_path, _coco())
    assert not problems
    assert [(item.question_id, item.image, item.gold, item.group) for item in items] == [
        (k, names[k], TEXTS[k], "") for k in TEXTS
    ]
    assert {item.text for item in items} == {"Provide a one-sentence caption for the provided image."}
    for content in ({"dataset": "coco", "images": karpathy}, lavis):
        others, problems = _read(CocoCaption, tmp_path, content)
        assert others == items
        assert not problems


def test_rows_that_cannot_be_used_are_named_and_left_out(tmp_path):
    content = _coco()
    content["images"] += [{"id": 4, "file_name": "four.jpg"}, {"id": 5}, "six", content["images"][0]]
    content["annotations"] += [{"image_id": 1, "caption": " "}, {"image_id": 1}, {"image_id": 77, "caption": "a cat"}]
    items, problems = _read(CocoCaption, tmp_path, content)
    assert {item.question_id: item.gold for item in items} == TEXTS
    found = problems.as_dict()
    assert problems["image without a reference"] == ["4"]
    assert problems["reference for an unknown image"] == ["77"]
    assert problems["duplicate question id"] == ["1"]
    counts = {kind: part["count"] for kind, part in found.items()}
    assert counts["reference without words"] == 2
    assert counts["row without `file_name`"] == counts["row that is not an object"] == 1
    assert sum(counts.values()) == 7


def test_fields_of_another_kind_are_named(tmp_path):
    rows = [
        {"image": "a_7.jpg", "caption": ["a cat", None, {}]},
        {"image": "a_8.jpg", "caption": {}},
        {"image": ["x"]},
        {"image": "x"},
    ]
    items, problems = _read(CocoCaption, tmp_path, rows)
    assert [(item.question_id, item.gold) for item in items] == [("7", ("a cat",))]
    assert {kind: part["count"] for kind, part in problems.as_dict().items()} == {
        "reference without words": 3,
        "image without a reference": 1,
        "row without `image`": 1,
        "image name without a number": 1,
    }
    images = [{"split": "test", "cocoid": k, "filename": "f", "sentences": s} for k, s in enumerate([["a"], 3, [{}]])]
    items, problems = _read(CocoCaption, tmp_path, {"images": images})
    assert [item.gold for item in items] == [("a",)]
    assert len(problems["reference without words"]) == 2


def test_a_split_without_references_can_be_asked_but_not_scored(tmp_path):
    items, problems = _read(NoCaps, tmp_path, {"images": _coco()["images"]})
    assert not problems
    assert [item.gold for item in items] == [None] * 3
    with pytest.raises(UserError, match="3 of 3 questions have no labels"):
        NoCaps().score(items, {}, "official", Problems())
    upload = NoCaps().upload(items, {"1": " a dog\n", "300": "a cat"})
    assert upload == [
        {"image_id": 1, "caption": "a dog"},
        {"image_id": 20, "caption": ""},
        {"image_id": 300, "caption": "a cat"},
    ]


@pytest.mark.parametrize("content", [{"info": 1}, {"images": []}, [{"question": "?"}], "{", "[]"])
def test_files_of_something_else_are_refused(tmp_path, content):
    with pytest.raises(UserError, match="labels.json"):
        _read(CocoCaption, tmp_path, content)


@needs_java
def test_bad_answers_are_named_and_none_of_them_raises_the_score(tmp_path, quick):
    items, _ = _read(CocoCaption, tmp_path, _coco())
    rows = [{"image_id": int(k), "caption": texts[0]} for k, texts in TEXTS.items()]

    def scored(rows):
        problems = Problems()
        answers = match(items, read_answers(_written(tmp_path, rows, "answers.json"), problems), problems)
        return CocoCaption().score(items, answers, "official", problems), problems

    whole, problems = scored(rows)
    assert not problems
    assert whole.metrics["Bleu_4"] == pytest.approx(1)
    assert whole.num_items == 3
    without, problems = scored(rows[:2])
    assert problems["missing answer"] == ["300"]
    empty, problems = scored([*rows[:2], {"image_id": 300, "caption": " "}])
    assert problems["empty prediction"] == ["300"]
    assert without == empty
    assert all(without.metrics[name] < value for name, value in whole.metrics.items() if name != "METEOR")
    more, problems = scored([*rows, {"image_id": 4, "caption": "x"}, {"image_id": 20, "caption": "y"}])
    assert problems["answer to an unknown question"] == ["4"]
    assert problems["duplicate answer"] == ["20"]
    assert more.metrics["ROUGE_L"] < whole.metrics["ROUGE_L"]


@needs_java
def test_nocaps_parts_are_scored_by_themselves(tmp_path, quick):
    items, _ = _read(NoCaps, tmp_path, _coco(d1="in-domain", d20="near-domain", d300="near-domain"))
    assert [item.group for item in items] == ["in-domain", "near-domain", "near-domain"]
    answers = {"1": "nothing of this sort", "20": TEXTS["20"][0], "300": TEXTS["300"][0]}
    score = NoCaps().score(items, answers, "official", Problems())
    assert score.groups["near-domain"]["CIDEr"] == pytest.approx(10)
    assert score.groups["near-domain"]["n"] == 2
    assert score.groups["in-domain"]["ROUGE_L"] == 0
    assert score.metrics["ROUGE_L"] == pytest.approx(2 / 3)
    assert set(score.groups) == {"in-domain", "near-domain"}
