"""`tove eval TASK --model`: every task of the miniature from its pictures to its score, resuming, bad data."""

import json
import shutil

import pytest
import torch

from helpers.eval_files import write_lines
from helpers.requirements import needs_java
from helpers.tiny_checkpoints import build
from tove_lvlm.checkpoints import LoadedCheckpoint
from tove_lvlm.checkpoints.merged import MergedCheckpoint
from tove_lvlm.eval import generate
from tove_lvlm.eval.ask import RANKED, describe_model, share_of
from tove_lvlm.eval.io.items import Item
from tove_lvlm.eval.metrics import caption_java
from tove_lvlm.world.benchmarks import ASKED

CAPTIONS = ("coco_caption", "nocaps")
ROW = ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]


@pytest.fixture
def ask(tove, checkpoint, benchmarks, tmp_path):
    """Task and further arguments to (exit code, record or None, stderr)."""

    def ask(task, *more, data=benchmarks, output=None):
        arguments = ["--data", data, "--output", output or tmp_path / "out", "--device", "cpu", "--json", *more]
        code, out, err = tove("eval", task, "--model", checkpoint, *arguments)
        return code, json.loads(out) if out else None, err

    return ask


def rows(folder):
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("task", [pytest.param(name, marks=needs_java) if name in CAPTIONS else name for name in ASKED])
def test_every_task_runs_from_pictures_to_score(ask, tove, benchmarks, tmp_path, monkeypatch, task):
    monkeypatch.setattr(caption_java, "meteor", lambda said, known, parts: [0.5 for part in parts])
    code, record, err = ask(task, "--limit", "20", "--max-new-tokens", "4")
    assert code == 0, err
    written = rows(tmp_path / "out")
    assert len(written) == record["num_items"] == record["answers"]["n"]
    assert all(list(row) == ROW for row in written)
    assert record["metrics"]
    assert record["prompt"]["template"] == ASKED[task]
    assert (record["model"]["id"], record["dtype"], record["world_size"]) == ("tiny", "float32", 1)
    greedy = {"max_new_tokens": 4, "temperature": 0.0, "top_p": 1.0, "num_beams": 1, "seed": 0}
    assert record["decoding"] == (RANKED if task == "vsr_likelihood" else greedy)
    uploads = {"vqav2": "question_id", "gqa": "questionId", "vizwiz": "image"}
    uploads |= dict.fromkeys(CAPTIONS, "image_id")
    upload = tmp_path / "out" / "upload.json"
    assert upload.exists() == (task in uploads)
    if task in uploads:
        assert len(json.loads(upload.read_text())) == len(written)
        assert uploads[task] in json.loads(upload.read_text())[0]
    answers = tmp_path / "out" / "answers.jsonl"
    code, out, _ = tove("eval", task, "--answers", answers, "--data", benchmarks, "--json")
    again = json.loads(out)
    assert code == 0
    assert again["prompt"] == record["prompt"]
    if again["num_items"] == record["num_items"]:
        assert again["metrics"] == record["metrics"]
    assert set(again["problems"]) <= {*record["problems"], "missing answer"}


def test_a_stopped_run_goes_on_and_ends_as_a_whole_one(ask, tmp_path):
    _, whole, _ = ask("pope", "--max-new-tokens", "3", output=tmp_path / "whole")
    _, part, _ = ask("pope", "--max-new-tokens", "3", "--limit", "7")
    assert (part["num_items"], part["num_resumed"]) == (7, 0)
    path = tmp_path / "out" / "answers.jsonl"
    path.write_bytes(path.read_bytes()[:-20])  # as a kill leaves it
    _, rest, _ = ask("pope", "--max-new-tokens", "3", "--batch-size", "5")
    assert rest["num_resumed"] == 6
    assert rest["metrics"] == whole["metrics"]
    assert rows(tmp_path / "out") == rows(tmp_path / "whole")
    _, fewer, _ = ask("pope", "--max-new-tokens", "3", "--limit", "7")
    assert fewer["metrics"] == part["metrics"]
    assert rows(tmp_path / "out") == rows(tmp_path / "whole")
    for more in (["--prompt", "Tell. {question}"], ["--temperature", "0.5"], ["--dtype", "bfloat16"]):
        code, _, err = ask("pope", "--max-new-tokens", "3", *more)
        assert code == 2
        assert "holds answers of another run" in err
        assert len(err.strip().splitlines()[-1].split("error: ")) == 2


def test_ranks_share_the_questions_and_each_picture_is_with_one():
    items = [Item(question_id=str(n), image=f"{n % 7}.jpg", text="what?") for n in range(40)]
    for world_size in (1, 2, 3, 5):
        shares = [share_of(items, rank, world_size) for rank in range(world_size)]
        assert sorted(int(item.question_id) for share in shares for item in share) == list(range(40))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        seen = [len({item.image for item in share}) for share in shares]
        assert sum(seen) <= 7 + world_size - 1, "only those at the borders are with two"


def test_missing_pictures_are_named_and_strict_refuses_them(ask, benchmarks, tmp_path):
    shutil.copytree(benchmarks, tmp_path / "data")
    (tmp_path / "data/val/VizWiz_val_00000002.jpg").unlink()
    (tmp_path / "data/val/VizWiz_val_00000003.jpg").write_bytes(b"")
    code, record, _ = ask("vizwiz", data=tmp_path / "data")
    assert code == 0
    assert record["problems"]["missing image"] == {"count": 1, "first": ["VizWiz_val_00000002.jpg"]}
    assert record["problems"]["unreadable image"] == {"count": 1, "first": ["VizWiz_val_00000003.jpg"]}
    assert record["problems"]["missing answer"]["count"] == 2
    assert record["answers"]["n"] == 3
    code, _, err = ask("vizwiz", "--strict", data=tmp_path / "data", output=tmp_path / "strict")
    assert code == 2
    assert "refused because of --strict: 1 x missing image: VizWiz_val_00000002.jpg" in err
    shutil.copytree(benchmarks / "val", tmp_path / "data/val", dirs_exist_ok=True)
    _, record, _ = ask("vizwiz", data=tmp_path / "data")
    assert (record["num_resumed"], record["answers"]["n"], record["problems"].get("missing image")) == (3, 5, None)


def test_a_test_split_gives_the_file_for_the_server_and_no_score(ask, benchmarks, tmp_path):
    asked = [
        {"question_id": n, "image": f"COCO_val2014_{n:012d}.jpg", "text": "what?", "category": "default"}
        for n in (1, 2)
    ]
    labels = write_lines(tmp_path / "test-dev.jsonl", asked)
    code, record, err = ask("vqav2", "--labels", labels, "--images", benchmarks / "val2014")
    assert code == 0, err
    assert record["metrics"] == {}
    assert record["answers"]["upload"] == "upload.json"
    upload = json.loads((tmp_path / "out" / "upload.json").read_text())
    assert [row["question_id"] for row in upload] == [1, 2]
    assert record["prompt"]["template"].endswith("phrase.")


def test_too_little_memory_says_what_to_do(ask, monkeypatch):
    def answers(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")
        yield

    monkeypatch.setattr(generate, "answers", answers)
    code, _, err = ask("pope", "--batch-size", "64")
    assert code == 2
    assert "too little memory for --batch-size 64; with a smaller one the same command goes on" in err


def test_fingerprints_tell_models_and_towers_apart(loaded, llm, tiny_tower_yaml, tmp_path):
    tove = describe_model(loaded, "tiny")
    assert tove["tower"]["kind"] == "tove"
    assert tove["tower"]["attached"] == ["depth", "shapes"]
    model, processor = build(llm, vision_tower="clip", clip=tiny_tower_yaml.parent / "clip")
    plain = LoadedCheckpoint(
        checkpoint=MergedCheckpoint(tmp_path), model=model, processor=processor, image_aspect_ratio="pad"
    )
    found = describe_model(plain, "clip")
    assert (found["tower"]["kind"], found["tower"]["attached"]) == ("clip", [])
    assert len({about[key] for about in (tove["tower"], found["tower"], tove, found) for key in ["fingerprint"]}) == 4
    before = found["tower"]["fingerprint"]
    with torch.no_grad():
        model.get_output_embeddings().weight[0, 0] += 1
    after = describe_model(plain, "clip")
    assert after["tower"]["fingerprint"] == before
    assert after["fingerprint"] != found["fingerprint"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pope", "--model", "nowhere"], "model folder `nowhere` does not exist"),
        (["pope", "--model", "{model}", "--answers", "a"], "give either --model FOLDER or --answers FILE"),
        (["pope", "--model", "{model}", "--dtype", "int8"], "--dtype is `int8`; valid: float32, bfloat16, float16"),
        (["pope", "--model", "{model}", "--device", "abacus"], "there is no such device here"),
        (["pope", "--model", "{model}", "--top-p", "0.5"], "`top_p` says how tokens are drawn"),
        (["pope", "--model", "{model}", "--images", "{data}/val"], "none of the 5 images is in"),
        (["pope", "--model", "{model}", "--data", "nowhere"], "data folder `nowhere` does not exist"),
        (["pope", "--model", "{model}", "--prompt", "{{x}}"], "--prompt `{x}` does not fit pope"),
        (["textvqa_ocr", "--model", "{model}"], "textvqa_ocr is not below"),
        (["pope", "--answers", "a", "--limit", "3"], "--limit goes with --model"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_code_2(tove, checkpoint, benchmarks, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    filled = [argument.format(model=checkpoint, data=benchmarks) for argument in arguments]
    code, _, err = tove("eval", *(["--data", benchmarks] if "--data" not in filled else []), *filled)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
