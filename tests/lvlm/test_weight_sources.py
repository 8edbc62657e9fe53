"""What a whole run needs of the hub, the language model and its tokenizer too."""

import json

import pytest
import torch
import yaml
from huggingface_hub import constants
from transformers import AutoTokenizer

from helpers.fetching import WANTED, files_of, parts, run, served, tower
from tove_lvlm.checkpoints.from_config import build_lvlm
from tove_lvlm.config import ConfigError, UserError
from tove_lvlm.config.model import ModelConfig
from tove_lvlm.lvlm.weight_sources import read_weight_sources
from tove_lvlm.storage import load_tensors
from tove_lvlm.storage.mirror import MIRROR_VARIABLE

__all__ = ["parts", "served", "tower"]


def test_a_run_goes_there_with_its_language_model(served, tower, tmp_path, monkeypatch, llm):
    """The tokenizer too, and its data may be elsewhere; stage 2 loads it from the mirror by its hub id."""
    served.repositories["owner/llm"] = {path.name: path.read_bytes() for path in llm.iterdir()}
    served.repositories["owner/llm"]["pytorch_model.bin"] = b"another format"
    cfg_path = tmp_path / "finetune.yaml"
    block = {"llm": "owner/llm", "vision_tower": "tove", "tower": "./tower.yaml"}
    cfg_path.write_text(yaml.safe_dump({"model": block, "data": {"train": ["nowhere.json"]}}))
    to = tmp_path / "mirror"
    report = json.loads(run(cfg_path, "--to", to, "--json").stdout)
    fetched = files_of(report)
    assert fetched.keys() >= WANTED
    of_llm = {name.removeprefix("owner/llm/") for name in fetched if name.startswith("owner/llm/")}
    assert of_llm == {path.name for path in llm.iterdir()}
    only_clip = json.loads(
        run(cfg_path, "--to", tmp_path / "m", "--dry-run", "--json", "--options", "model.vision_tower=clip").stdout
    )
    assert {row["repo"] for row in only_clip["repositories"]} == {"owner/clip", "owner/llm"}

    served.__exit__()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    built = ModelConfig(llm="owner/llm", vision_tower="tove", tower=str(tower))
    with pytest.raises(UserError, match="`owner/llm`: its Tokenizer cannot be read"):
        build_lvlm(built)
    monkeypatch.setenv(MIRROR_VARIABLE, str(to))
    model, processor = build_lvlm(built)
    own = load_tensors(llm)
    assert torch.equal(model.lm_head.weight[: len(own["lm_head.weight"])], own["lm_head.weight"])
    assert (
        processor.tokenizer("what is red ?").input_ids == AutoTokenizer.from_pretrained(llm)("what is red ?").input_ids
    )


def test_a_model_block_that_is_none(tmp_path):
    (tmp_path / "run.yaml").write_text("model: vicuna")
    with pytest.raises(ConfigError, match="`model` is 'vicuna'; expected a block of a training YAML"):
        read_weight_sources(tmp_path / "run.yaml")
