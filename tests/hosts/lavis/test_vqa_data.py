"""Questions out of LLaVA's JSON for LAVIS: what is read, what LAVIS's data sets give, and how answers are judged."""

import json

import pytest
from PIL import Image

from tove_lvlm.config import UserError
from tove_lvlm.data.errors import DataError
from tove_lvlm.hosts.lavis.vqa_data import read_questions, write_vqav2

TURNS = [
    {"from": "human", "value": "<image>\nIs it red?"},
    {"from": "gpt", "value": "yes"},
    {"from": "human", "value": "How many?"},
    {"from": "gpt", "value": "2"},
]
ROWS = [
    {"image": "0.png", "question": "Is it red?", "answer": "yes"},
    {"image": "0.png", "question": "How many?", "answer": "2"},
]


@pytest.fixture
def files(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps([{"image": "0.png", "conversations": TURNS}]))
    lines = [{"image": row["image"], "text": row["question"], "answer": row["answer"]} for row in ROWS]
    (tmp_path / "val.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "answers.json").write_text('["yes", "no", "2"]')
    Image.new("RGB", (4, 4)).save(tmp_path / "0.png")
    return tmp_path


def test_both_forms_are_read(files):
    assert read_questions(files / "train.json") == ROWS
    assert read_questions(files / "val.jsonl") == ROWS


def test_what_is_refused(files):
    (files / "a.jsonl").write_text('{"image": "0.png", "text": "Is it red?"}')
    with pytest.raises(UserError, match=r"a.jsonl: record 0 has no `image` with `text` and `answer`"):
        read_questions(files / "a.jsonl")
    (files / "b.json").write_text(json.dumps([{"image": "0.png", "conversations": TURNS[:3]}]))
    with pytest.raises(DataError, match=r"b.json, sample '0': a question has no answer"):
        read_questions(files / "b.json")


def test_lavis_data_sets(lavis, files):
    from lavis.common.registry import registry
    from omegaconf import OmegaConf

    info = {
        "annotations": {"train": {"storage": str(files / "train.json")}, "val": {"storage": str(files / "val.jsonl")}},
        "images": {"train": str(files), "val": str(files)},
        "answer_list": str(files / "answers.json"),
    }
    cfg = OmegaConf.create({"data_type": "images", "build_info": info})
    built = registry.get_builder_class("llava_vqa")(cfg).build_datasets()
    for dataset in built.values():
        dataset.vis_processor = lambda image: image.size
    assert built["train"].answer_list == ["yes", "no", "2"]
    assert built["train"][1] == {"image": (4, 4), "text_input": "How many?", "answers": ["2"], "weights": [1.0]}
    assert built["val"][1] == {"image": (4, 4), "text_input": "How many?", "question_id": 1, "instance_id": "1"}
    questions = json.loads(open(built["val"].coco_fmt_qust_file).read())["questions"]
    assert [row["question"] for row in questions] == ["Is it red?", "How many?"]


def test_vqav2s_script_counts_answers_that_are_the_same(lavis, tmp_path):
    from lavis.common.vqa_tools.vqa import VQA
    from lavis.common.vqa_tools.vqa_eval import VQAEval

    rows = [*ROWS, {"image": "1.png", "question": "What is it?", "answer": "cone"}]
    rows = [{**row, "question_id": number} for number, row in enumerate(rows)]
    questions, annotations = write_vqav2(tmp_path, rows)
    given = tmp_path / "given.json"
    given.write_text(json.dumps([{"question_id": i, "answer": a} for i, a in enumerate(("Yes", "two", "a sphere"))]))
    reference = VQA(annotations, questions)
    scorer = VQAEval(reference, reference.loadRes(str(given), questions), n=2)
    scorer.evaluate()
    assert scorer.accuracy["overall"] == 66.67
    assert scorer.accuracy["perAnswerType"] == {"yes/no": 100.0, "number": 100.0, "other": 0.0}
    assert scorer.accuracy["perQuestionType"] == {"is": 100.0, "how": 100.0, "what": 0.0}
