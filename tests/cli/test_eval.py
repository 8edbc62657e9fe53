"""`tove eval` as a user calls it: answers that exist, the list of tasks, two records side by side."""

import json
import subprocess
import sys

import pytest

from helpers.eval_files import shared, write_lines
from helpers.requirements import needs_java
from tove_lvlm.eval.metrics import caption_java

SPLITS = ("random", "popular", "adversarial")


@pytest.fixture
def oracle():
    labels = [shared(f"pope/coco_pope_{split}@e3e3926.json") for split in SPLITS]
    return ["pope", "--answers", shared("llava_eval/pope/answers/llava-v1.5-13b.jsonl"), "--labels", *labels]


def test_llava_13b_scores_what_it_published(tove, oracle, tmp_path):
    code, out, _ = tove("eval", *oracle, "--json", "--strict", "--output", tmp_path)
    record = json.loads(out)
    assert code == 0
    assert json.loads((tmp_path / "record.json").read_text()) == record
    counts = [[record["groups"][split][key] for key in ("tp", "fp", "tn", "fn")] for split in SPLITS]
    assert counts == [[1182, 31, 1379, 318], [1182, 59, 1441, 318], [1182, 117, 1383, 318]]
    assert round(record["metrics"]["mean_f1"], 7) == 0.8594688
    _, out, _ = tove("eval", *oracle)
    assert "0.8594688" in out
    assert "pope: 8910 questions, convention official" in out


def test_conventions_are_named(tove, oracle):
    code, out, _ = tove("eval", *oracle, "--json", "--convention", "vlmevalkit")
    assert code == 0
    assert json.loads(out)["metrics"]["f1"] == pytest.approx(85.93239, abs=1e-4)


@needs_java
def test_the_coco_captions_oracle(tove, tmp_path, monkeypatch):
    """Without METEOR, which takes ten seconds: test_caption.py has it."""
    monkeypatch.setattr(caption_java, "meteor", lambda said, known, parts: [0.5 for part in parts])
    rows = json.loads(shared("coco_caption/spice_example_input_larger.json").read_text())
    images = [{"id": row["image_id"], "file_name": f"{row['image_id']}.jpg"} for row in rows]
    said = [{"image_id": row["image_id"], "caption": text} for row in rows for text in row["refs"]]
    labels = tmp_path / "captions.json"
    labels.write_text(json.dumps({"images": images, "annotations": said}))
    answers = shared("coco_caption/captions_val2014_fakecap_results.json")
    code, out, err = tove("eval", "coco_caption", "--answers", answers, "--labels", labels, "--json", "--strict")
    assert code == 0, err
    expected = {
        "Bleu_1": 0.5794,
        "Bleu_2": 0.4044,
        "Bleu_3": 0.2785,
        "Bleu_4": 0.1908,
        "ROUGE_L": 0.3963,
        "CIDEr": 0.5999,
    }
    metrics = json.loads(out)["metrics"]
    assert {name: round(metrics[name], 4) for name in expected} == expected


def test_list_says_what_is_there(tove, tmp_path):
    (tmp_path / "val2014").mkdir()
    (tmp_path / "output" / "coco").mkdir(parents=True)
    write_lines(tmp_path / "output" / "coco" / "coco_pope_random.json", [{"question_id": 1}])
    code, out, _ = tove("eval", "--list", "--data", tmp_path)
    assert code == 0
    assert "pope: found." in out
    assert "vqav2: missing." in out
    assert "visualqa.org" in out
    _, out, _ = tove("eval", "--list", "--data", tmp_path, "--json")
    assert {row["task"] for row in json.loads(out)} >= {"pope", "vsr", "vqav2", "gqa", "textvqa", "vizwiz", "nocaps"}


def test_deepspeeds_launcher_may_put_its_own_flag_first(tove, tmp_path):
    code, out, _ = tove("--local_rank=1", "eval", "--list", "--data", tmp_path)
    assert code == 0
    assert "pope: missing." in out


def test_two_records_side_by_side(tove, oracle, tmp_path):
    for name, convention in (("a", "official"), ("b", "official"), ("c", "lmms-eval")):
        tove("eval", *oracle, "--convention", convention, "--output", tmp_path / name)
    code, out, _ = tove("eval", "compare", tmp_path / "a", tmp_path / "b")
    assert code == 0
    assert "mean_f1" in out
    code, _, err = tove("eval", "compare", tmp_path / "a", tmp_path / "c")
    assert code == 2
    assert "not comparable: convention: official and lmms-eval" in err
    code, out, _ = tove("eval", "compare", tmp_path / "a", tmp_path / "c", "--force", "--json")
    assert code == 0
    assert json.loads(out)["incomparable"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a task"),
        (["pop"], "unknown task `pop`; did you mean `pope`"),
        (["pop", "--answers", "a"], "unknown task `pop`; did you mean `pope`"),
        (["compare", "a"], "takes two records, got 1"),
        (["compare", "a", "b"], "file `a` does not exist"),
        (["pope", "--answers", "a", "--data", "nowhere"], "data folder `nowhere` does not exist"),
        (["pope", "x.json", "--answers", "a"], "label files are given as --labels"),
        (["pope", "--answers", "a", "--labels", "coco_pope_random.json"], "`coco_pope_random.json` does not exist"),
    ],
)
def test_bad_input_is_one_line_and_code_2(tove, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = tove("eval", *arguments)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_scoring_answers_loads_nothing_heavy(oracle):
    arguments = ["tove", "eval", *map(str, oracle), "--json"]
    code = (
        f"import sys; from tove_lvlm import cli; sys.argv = {arguments!r}\n"
        "try: cli.main()\nexcept SystemExit: pass\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "mean_f1" in done.stdout, done.stderr
    assert not set(done.stdout.split()) & {"torch", "transformers", "deepspeed", "timm"}


def test_what_is_wrong_is_printed_and_fatal_when_strict(tove, tmp_path):
    rows = [
        {"question_id": n, "image": f"{n}.jpg", "text": f"Is there a thing {n}?", "label": label}
        for n, label in enumerate(("yes", "no", "perhaps"), start=1)
    ]
    labels = write_lines(tmp_path / "coco_pope_random.json", rows)
    said = [{"question_id": 1, "text": "yes"}, {"question_id": 1, "text": "no"}, {"question_id": 9, "text": "no"}]
    answers = write_lines(tmp_path / "answers.jsonl", said)
    answers.write_text(answers.read_text() + '{"question_id": 2, "te')
    code, out, _ = tove("eval", "pope", "--answers", answers, "--labels", labels)
    assert code == 0
    assert out.splitlines()[-5:] == [
        "problem: 1 x label neither yes nor no: coco_pope_random.json:3",
        "problem: 1 x unreadable line: answers.jsonl:4",
        "problem: 1 x duplicate answer: random/1",
        "problem: 1 x answer to an unknown question: 9",
        "problem: 1 x missing answer: random/2",
    ]
    code, out, err = tove("eval", "pope", "--answers", answers, "--labels", labels, "--strict")
    assert (code, out) == (2, "")
    assert err.startswith("error: refused because of --strict: 1 x label neither yes nor no")
    assert len(err.strip().splitlines()) == 1
