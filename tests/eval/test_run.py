"""From files to a record: limits, prompts, answers that exist, and all that can be wrong with them."""

import hashlib
import json

import pytest

from helpers.eval_files import shared, write_json, write_lines
from tove_lvlm.config import UserError
from tove_lvlm.eval.benchmark import read_benchmark
from tove_lvlm.eval.run import score_answers, score_record

SPLITS = ("random", "popular", "adversarial")


def pope_rows(count=4):
    return [
        {"question_id": n + 1, "image": f"{n}.jpg", "text": f"Is there a thing {n}?", "label": ("yes", "no")[n % 2]}
        for n in range(count)
    ]


@pytest.fixture
def labels(tmp_path):
    return write_lines(tmp_path / "coco_pope_random.json", pope_rows())


def answered(tmp_path, texts, **more):
    rows = [{"question_id": key, "text": text, **more} for key, text in texts]
    return write_lines(tmp_path / "answers.jsonl", rows)


def test_llava_13b_scores_what_it_published():
    benchmark = read_benchmark("pope", [shared(f"pope/coco_pope_{split}@e3e3926.json") for split in SPLITS])
    record = score_answers(benchmark, shared("llava_eval/pope/answers/llava-v1.5-13b.jsonl"), strict=True)
    assert record["metrics"]["mean_f1"] == pytest.approx(0.8594688, abs=1e-7)
    assert [record["groups"][s][k] for s in SPLITS for k in ("tp", "fp", "tn", "fn")] == [
        *(1182, 31, 1379, 318),
        *(1182, 59, 1441, 318),
        *(1182, 117, 1383, 318),
    ]
    assert record["problems"] == {}
    assert record["prompt"]["template"] == "{question}\nAnswer the question using a single word or phrase."


def test_everything_wrong_with_answers_is_counted_and_strict_refuses_it(tmp_path, labels):
    texts = [(1, "yes"), (1, "Yes"), (2, ""), (3, "maybe"), (99, "no")]
    path = answered(tmp_path, texts)
    path.write_text(path.read_text() + '{"question_id": 4, "te')
    record = score_answers(read_benchmark("pope", [labels], "vlmevalkit"), path)
    counts = {kind: found["count"] for kind, found in record["problems"].items()}
    assert counts == {
        "unreadable line": 1,
        "answer to an unknown question": 1,
        "duplicate answer": 1,
        "missing answer": 1,
        "empty prediction": 1,
        "answer neither yes nor no": 1,
    }
    assert record["problems"]["missing answer"]["first"] == ["random/4"]
    assert record["metrics"]["accuracy"] == 25.0
    with pytest.raises(UserError, match=r"refused because of --strict: 1 x unreadable line: answers.jsonl:6; .*99"):
        score_answers(read_benchmark("pope", [labels]), path, strict=True)


def test_bad_labels_are_counted_and_strict_refuses_them(tmp_path):
    labels = write_lines(tmp_path / "coco_pope_random.json", [*pope_rows(2), pope_rows(3)[2] | {"label": "perhaps"}])
    answers = answered(tmp_path, [(1, "yes"), (2, "no")])
    record = score_answers(read_benchmark("pope", [labels]), answers)
    assert record["problems"]["label neither yes nor no"] == {"count": 1, "first": ["coco_pope_random.json:3"]}
    assert record["num_items"] == 2
    with pytest.raises(UserError, match="label neither yes nor no"):
        score_answers(read_benchmark("pope", [labels]), answers, strict=True)
    rows = [{"image": "a.jpg", "question": "what?", "answers": [{"answer": "cup"}] * 9, "answerable": 1}]
    labels = write_json(tmp_path / "val.json", rows)
    answers = write_json(tmp_path / "upload.json", [{"image": "a.jpg", "answer": "cup"}])
    record = score_answers(read_benchmark("vizwiz", [labels]), answers)
    assert record["problems"]["question with fewer than ten annotators"]["count"] == 1
    assert record["metrics"]["accuracy"] == 100.0


def test_the_prompt_is_known_only_when_the_answers_say_it(tmp_path, labels):
    asked = "Is there a thing 0?\nAnswer the question using a single word or phrase."
    for prompt, known in ((asked, True), ("Is there a thing 0?", False), (None, False)):
        path = answered(tmp_path, [(1, "yes")], **({"prompt": prompt} if prompt else {}))
        assert (score_answers(read_benchmark("pope", [labels]), path)["prompt"] is not None) == known


def test_a_limit_takes_the_first_questions(labels):
    benchmark = read_benchmark("pope", [labels], limit=3)
    assert [item.question_id for item in benchmark.items] == ["random/1", "random/2", "random/3"]


def test_another_prompt_is_asked_and_refused_where_it_would_not_be(tmp_path, labels):
    benchmark = read_benchmark("pope", [labels], prompt="Look. {question}")
    assert benchmark.items[0].text == "Look. Is there a thing 0?"
    assert benchmark.task.prompt == "Look. {question}"
    assert read_benchmark("pope", [labels]).items[0].text.endswith("phrase.")
    for prompt in ("{q}?", "{question.x}", "{question[x]}", "{"):
        with pytest.raises(UserError, match=r"--prompt .* does not fit pope: it may have \{question\} in it"):
            read_benchmark("pope", [labels], prompt=prompt)
    llava = write_lines(tmp_path / "llava.jsonl", [pope_rows()[0] | {"category": "random"}])
    with pytest.raises(UserError, match="--prompt has no effect"):
        read_benchmark("pope", [llava], prompt="{question}")


def test_unknown_names_list_the_nearest(labels):
    with pytest.raises(UserError, match="unknown task `popes`; did you mean `pope`"):
        read_benchmark("popes", [labels])
    with pytest.raises(UserError, match="task `pope` has no convention `lmms`; did you mean `lmms-eval`"):
        read_benchmark("pope", [labels], "lmms")


def test_answers_to_a_test_split_become_the_file_for_the_server(tmp_path):
    asked = [{"question_id": n, "image": "a.jpg", "text": "what?"} for n in (1, 2)]
    labels = write_lines(tmp_path / "test.jsonl", asked)
    answers = answered(tmp_path, [(1, "A dog.")])
    with pytest.raises(UserError, match="2 of 2 questions have no labels"):
        score_answers(read_benchmark("vqav2", [labels]), answers)
    record = score_answers(read_benchmark("vqav2", [labels]), answers, output=tmp_path / "out")
    assert (record["metrics"], record["answers"]["upload"]) == ({}, "upload.json")
    assert json.loads((tmp_path / "out" / "upload.json").read_text()) == [
        {"question_id": 1, "answer": "dog"},
        {"question_id": 2, "answer": ""},
    ]


def test_it_says_how_the_score_was_made(labels):
    benchmark = read_benchmark("pope", [labels])
    score = benchmark.score({"random/1": "yes"})
    found = score_record(benchmark, score, answers={"n": 1}, made_by={"model": {"id": "m"}, "dtype": "float32"})
    assert found["labels"] == {"coco_pope_random.json": hashlib.sha256(labels.read_bytes()).hexdigest()}
    assert found["prompt"]["sha256"] == hashlib.sha256(benchmark.task.prompt.encode()).hexdigest()
    assert (found["task"], found["convention"], found["ocr"], found["limit"]) == ("pope", "official", False, None)
    assert (found["model"], found["dtype"]) == ({"id": "m"}, "float32")
    assert found["metrics"]["tp"] == 1
    assert {"python", "torch", "transformers"} <= set(found["versions"])


def test_without_labels_there_is_no_score(labels):
    benchmark = read_benchmark("pope", [labels])
    found = score_record(benchmark, None, answers={})
    assert found["metrics"] == {}
    assert found["notes"] == ["no public labels: not scored"]
    assert "cores" in found["hardware"]
