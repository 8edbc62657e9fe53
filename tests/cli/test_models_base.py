"""Every command that takes a trained model takes a base model: chat, usage, gates, detach, attach, eval."""

import json

import pytest

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
