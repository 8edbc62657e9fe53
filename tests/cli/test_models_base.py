"""Every command that takes a trained model takes a base model: chat, usage, gates, detach, attach, eval."""

import json

import pytest

from helpers.requirements import needs_java
from helpers.tiny_base import build_base, save_base
from helpers.tiny_decoders import make_decoder
from helpers.tiny_lvlm import make_data
from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.surgery.choose import KEEP, Rule
from tove_lvlm.surgery.detach import detach
from tove_lvlm.surgery.probe_data import read_probe_data


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_tower_yaml):
    folder = tmp_path_factory.mktemp("base")
    make_data(folder / "data", num=6, text_only=False)
    save_base(folder / "model", *build_base(make_decoder(folder / "decoder"), tiny_tower_yaml))
    return folder


def test_chat(tove, world):
    picture = world / "data" / "images" / "0.png"
    code, out, err = tove("chat", picture, "what is red ?", "--model", world / "model", "--json")
    assert code == 0, err
    assert json.loads(out)["question"] == "what is red ?"
    code, _, err = tove("chat", picture, "", "--model", world / "model")
    assert code == 0, err
    code, _, err = tove("chat", picture, "what is red ?", "--also", picture, "--model", world / "model")
    assert code == 2
    assert "the base model answers about one image only; there are 2 for `what is red ?`" in err


def test_usage(tove, world, tmp_path):
    data = ["--data", world / "data" / "finetune.json", "--image-folder", world / "data" / "images"]
    code, out, err = tove("usage", world / "model", *data, "--output", tmp_path / "usage", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert set(report["experts"]) == {"depth", "normals", "shapes", "cnn"}
    assert report["num_answers"] == 12
    assert all(row["loss_change"] != 0 for row in report["experts"].values())


def test_gates(tove, world, tmp_path):
    code, _, err = tove("gates", world / "model", world / "data" / "images" / "0.png", "--output", tmp_path / "g")
    assert code == 0, err
    assert any(path.suffix == ".png" for path in (tmp_path / "g").rglob("*"))


def test_detach_by_a_rule_and_attach(tove, world, tmp_path):
    small, back = tmp_path / "small", tmp_path / "back"
    data = read_probe_data(data=world / "data" / "finetune.json", image_folder=world / "data" / "images")
    report = detach(world / "model", small, rule=Rule(name=KEEP, limit=2), data=data, device="cpu", seconds=0.1)
    assert len(open_checkpoint(small).tower.attached_names) == 2
    assert report["after"]["prefill_ms"] > 0
    code, _, err = tove("attach", small, "--from", world / "model", "--output", back)
    assert code == 0, err
    assert (back / "model.safetensors").read_bytes() == (world / "model" / "model.safetensors").read_bytes()


def test_eval_by_words_and_by_likelihood(tove, world, tmp_path):
    rows = [
        {"image": f"{i}.png", "caption": f"the box is on the ball {i}", "label": i % 2, "relation": "on"}
        for i in range(6)
    ]
    labels = tmp_path / "test.jsonl"
    labels.write_text("\n".join(map(json.dumps, rows)))
    for task in ("vsr", "vsr_likelihood"):
        where = ["--labels", labels, "--images", world / "data" / "images", "--output", tmp_path / task]
        code, out, err = tove("eval", task, "--model", world / "model", *where, "--json")
        assert code == 0, err
        record = json.loads((tmp_path / task / "score.json").read_text()) if not out.strip() else json.loads(out)
        assert record["answers"]["n"] == 6
        assert record["conversation"] == "question"
        assert record["prompt"]["template"] == "{question} true or false?"


def vqav2_files(folder) -> list:
    """VQAv2's own two files about three images of the tiny world."""
    asked = [{"question_id": i, "image_id": i, "question": "what color is it ?", "image": f"{i}.png"} for i in range(3)]
    known = [
        {"question_id": i, "answers": [{"answer": "red"}] * 10, "answer_type": "other", "question_type": "what color"}
        for i in range(3)
    ]
    files = [folder / "questions.json", folder / "annotations.json"]
    for path, content in zip(files, ({"questions": asked}, {"annotations": known}), strict=True):
        path.write_text(json.dumps(content))
    return files


def test_vqav2_by_ranking_among_candidates(tove, world, tmp_path):
    (tmp_path / "answers.json").write_text(json.dumps(["blue", "red", "box", "two"]))
    where = ["--labels", *vqav2_files(tmp_path), "--images", world / "data" / "images", "--output", tmp_path / "out"]
    given = [*where, "--candidates", tmp_path / "answers.json", "--top-k", 3, "--json"]
    code, out, err = tove("eval", "vqav2", "--model", world / "model", *given)
    assert code == 0, err
    decoding = json.loads(out)["decoding"]
    assert (decoding["num_candidates"], decoding["top_k"]) == (4, 3)
    rows = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert {row["text"] for row in rows} <= {"blue", "red", "box", "two"}
    assert all(row["metadata"]["log_likelihood"] < 0 for row in rows)
    code, _, err = tove("eval", "vqav2", "--model", world / "model", *where)
    assert code == 2, "the same folder holds ranked answers"
    assert "decoding" in err


def test_candidates_that_do_not_fit(tove, world, tmp_path):
    (tmp_path / "answers.json").write_text(json.dumps(["blue", "red", "blue"]))
    candidates = ["--candidates", tmp_path / "answers.json"]
    where = ["--labels", *vqav2_files(tmp_path), "--images", world / "data" / "images", "--output", tmp_path / "out"]
    code, _, err = tove("eval", "vqav2", "--model", world / "model", *where, *candidates)
    assert code == 2
    assert "candidate answer 3, 'blue', is number 1 too" in err
    assert not (tmp_path / "out").exists()
    code, _, err = tove("eval", "vqav2", "--answers", "a.json", *where[:3], *candidates)
    assert (code, "--candidates goes with --model" in err) == (2, True)


@pytest.mark.full
@needs_java
def test_captions_are_asked_as_blip_asks_for_them(tove, world, tmp_path):
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(2)]
    said = [{"id": i, "image_id": i, "caption": "the red box is left"} for i in range(2)]
    labels = tmp_path / "captions.json"
    labels.write_text(json.dumps({"images": images, "annotations": said}))
    where = ["--labels", labels, "--images", world / "data" / "images", "--limit", 1, "--json"]
    for name, options in (("default", []), ("given", ["--num-beams", 1, "--max-new-tokens", 6, "--prompt", "the"])):
        output = tmp_path / name
        code, out, err = tove("eval", "coco_caption", "--model", world / "model", *where, "--output", output, *options)
        assert code == 0, err
        record = json.loads(out)
        decoding = record["decoding"]
        shape = (decoding["num_beams"], decoding["max_new_tokens"], decoding["min_new_tokens"])
        assert shape == ((3, 20, 5) if name == "default" else (1, 6, 5))
        assert record["prompt"]["template"] == ("" if name == "default" else "the")
    short = ["--output", tmp_path / "short", "--max-new-tokens", 3]  # shorter than the five that BLIP asks for
    code, out, err = tove("eval", "coco_caption", "--model", world / "model", *where, *short)
    assert code == 0, err
    assert json.loads(out)["decoding"]["max_new_tokens"] == 3
