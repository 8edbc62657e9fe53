"""`tove cache`: build, stat, verify, prune, from a run's YAML to an empty folder."""

import json

import pytest
import yaml

from helpers import tiny_towers
from helpers.llava_runs import run_block
from tove_lvlm.feature_cache import shard

pytestmark = pytest.mark.usefixtures("one_rank")


@pytest.fixture
def cfg_path(tiny_tower_yaml, tiny_data, llm, tmp_path):
    block = run_block(tmp_path, "pretrain")
    block["model"] |= {"llm": str(llm), "tower": str(tiny_tower_yaml)}
    block["data"] = {"train": [f"{tiny_data}/pretrain.json"], "image_folder": f"{tiny_data}/images"}
    block["train"]["expert_cache"] = str(tmp_path / "cache")
    path = tmp_path / "pretrain.yaml"
    path.write_text(yaml.safe_dump(block))
    return path


def test_from_a_yaml_to_an_empty_folder(cfg_path, tove, tmp_path):
    cache = tmp_path / "cache"
    code, out, _ = tove(
        "cache", "build", "--cfg-path", cfg_path, "--options", "train.seed=3", "train.bf16=false", "--json"
    )
    assert code == 0
    assert json.loads(out) == {"images": 24, "broken": [], "read": 0, "computed": 120, "stopped": None}
    code, out, _ = tove("cache", "build", "--cfg-path", cfg_path)
    assert (code, out.strip()) == (0, "24 images: 0 features computed, 120 there already")
    code, out, _ = tove("cache", "stat", cache, "--json")
    parts = {part["name"]: part for part in json.loads(out)}
    assert code == 0
    assert {name: part["images"] for name, part in parts.items()} == dict.fromkeys(
        ["clip", *tiny_towers.EXPERT_NAMES], 24
    )
    code, out, _ = tove("cache", "stat", cache)
    assert code == 0
    assert "16 x 32" in out
    assert tove("cache", "verify", cache)[0] == 0

    data = next((cache / parts["depth"]["folder"]).glob("*.data"))
    content = bytearray(data.read_bytes())
    content[shard.DATA_HEADER + 7] ^= 1
    data.write_bytes(content)
    code, out, _ = tove("cache", "verify", cache)
    assert code == 1
    assert "1 of 24 records are not as they were written" in out
    code, out, _ = tove("cache", "prune", cache, "--drop", "cnn", "--json")
    report = json.loads(out)
    assert (code, report["damaged"], report["dropped_parts"]) == (0, 1, [parts["cnn"]["folder"]])
    assert tove("cache", "verify", cache)[0] == 0
    code, out, _ = tove("cache", "prune", cache, "--size-gb", 0)
    assert code == 0
    assert "4 old shards removed" in out


def test_what_is_wrong_is_one_line(tove, tmp_path):
    for command in ("stat", "verify", "prune"):
        code, _, err = tove("cache", command, tmp_path)
        assert code == 2
        assert err.strip().splitlines()[-1].startswith(f"error: `{tmp_path}` holds no expert cache")
    code, _, err = tove("cache", "build", "--cfg-path", tmp_path / "no.yaml")
    assert (code, "does not exist" in err) == (2, True)
