"""Runs of one benchmark side by side: replies are scored by the task's scorer; what cannot be compared is refused."""

import json
import time

import pytest

from helpers.eval_files import shared, write_json, write_lines
from tove_lvlm.config import UserError
from tove_lvlm.eval.benchmark import read_benchmark
from tove_lvlm.eval.disagreements import read_side_by_side
from tove_lvlm.eval.run import score_answers

SPLITS = ("random", "popular")


@pytest.fixture
def data(tmp_path):
    """Four POPE questions in two splits, with one picture."""
    folder = tmp_path / "data" / "output" / "coco"
    folder.mkdir(parents=True)
    (tmp_path / "data" / "val2014").mkdir()
    for split in SPLITS:
        rows = [
            {
                "question_id": n,
                "image": f"{n}.jpg",
                "text": f"Is there a {split} {n}?",
                "label": "yes" if n % 2 else "no",
            }
            for n in (1, 2)
        ]
        write_lines(folder / f"coco_pope_{split}.json", rows)
    return tmp_path / "data"


def run(folder, data, answers: dict[str, str], task: str = "pope", name: str | None = None):
    """What `tove eval` leaves, of these answers."""
    labels = sorted((data / "output" / "coco").glob("coco_pope_*.json"))
    benchmark = read_benchmark(task, labels)
    prompts = {item.question_id: item.text for item in benchmark.items}
    rows = [{"question_id": id_, "prompt": prompts[id_], "text": text} for id_, text in answers.items()]
    file = write_lines(folder.with_suffix(".jsonl"), rows)
    record = score_answers(benchmark, file, output=folder)
    if name:
        write_json(folder / "record.json", record | {"model": {"id": name}})
    file.rename(folder / "answers.jsonl")
    return folder


def test_replies_stand_side_by_side(data, tmp_path):
    right = {"random/1": "Yes", "random/2": "No", "popular/1": "Yes", "popular/2": "no, there is none"}
    one = run(tmp_path / "one", data, right, name="clip")
    other = run(tmp_path / "other", data, {**right, "random/2": "Yes", "popular/1": "No"}, name="tove")
    found = read_side_by_side([one, other], data)
    assert (found.task, found.runs) == ("pope", ("clip", "tove"))
    assert found.groups() == ["popular", "random"]
    assert found.images == data / "val2014"
    by_id = {question.question_id: question for question in found.questions}
    disputed = by_id["random/2"]
    assert (disputed.gold, disputed.group, disputed.image) == ("no", "random", "2.jpg")
    assert [(reply.text, reply.accuracy, reply.is_right) for reply in disputed.replies] == [
        ("No", 1.0, True),
        ("Yes", 0.0, False),
    ]
    assert [id_ for id_, question in by_id.items() if question.is_disputed] == ["popular/1", "random/2"]


def test_a_missing_answer_is_wrong_and_named_as_missing(data, tmp_path):
    one = run(tmp_path / "one", data, {"random/1": "Yes"})
    other = run(tmp_path / "other", data, {"random/1": "Yes", "random/2": "No", "popular/1": "Yes"})
    found = read_side_by_side([one, other], data)
    assert found.runs == ("one", "other")
    for missing in (
        "random/2",
        "popular/1",
    ):  # right are no and yes, and an empty text is read as one of them
        reply = next(question for question in found.questions if question.question_id == missing).replies[0]
        assert (reply.text, reply.accuracy) == (None, 0.0)


def test_what_cannot_be_compared_is_refused(data, tmp_path):
    answers = {"random/1": "Yes", "random/2": "No"}
    one, other = (run(tmp_path / name, data, answers) for name in ("one", "other"))
    with pytest.raises(UserError, match="1 run given"):
        read_side_by_side([one], data)
    with pytest.raises(UserError, match="absent.* does not exist"):
        read_side_by_side([one, tmp_path / "absent"], data)
    saved = json.loads((other / "record.json").read_text())
    write_json(other / "record.json", saved | {"limit": 1})
    with pytest.raises(UserError, match="cannot be compared with .*limit: None and 1"):
        read_side_by_side([one, other], data)
    write_json(other / "record.json", saved)
    labels = data / "output" / "coco" / "coco_pope_random.json"
    labels.write_text(labels.read_text().replace('"yes"', '"no"'))
    with pytest.raises(UserError, match="not those that were scored"):
        read_side_by_side([one, other], data)
    (data / "output").rename(data / "elsewhere")
    with pytest.raises(UserError, match="pope is not below"):
        read_side_by_side([one, other], data)


def test_nine_thousand_questions_of_three_runs_take_seconds(tmp_path):
    """Real label files; the page wants them in 3 s where nothing else runs."""
    folder = tmp_path / "output" / "coco"
    folder.mkdir(parents=True)
    (tmp_path / "val2014").mkdir()
    for split in ("random", "popular", "adversarial"):
        (folder / f"coco_pope_{split}.json").write_bytes(shared(f"pope/coco_pope_{split}.json").read_bytes())
    labels = sorted(folder.glob("*.json"))
    benchmark = read_benchmark("pope", labels)
    runs = []
    for name, wrong in (("a", 7), ("b", 11), ("c", 13)):
        texts = {
            item.question_id: "Yes" if bool(item.gold) == bool(number % wrong) else "No"
            for number, item in enumerate(benchmark.items)
        }
        runs.append(run(tmp_path / name, tmp_path, texts))
    start = time.perf_counter()
    found = read_side_by_side(runs, tmp_path)
    seconds = time.perf_counter() - start
    assert len(found.questions) > 8000
    wrong = [sum(question.replies[k].is_right is False for question in found.questions) for k in range(3)]
    assert wrong == [len(range(0, len(found.questions), step)) for step in (7, 11, 13)]
    assert seconds < 15
