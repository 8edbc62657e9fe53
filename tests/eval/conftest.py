"""A tiny model that answers something, and the miniature's benchmarks."""

import json
from pathlib import Path

import pytest
import tiny
import tiny_lvlm


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A merged folder with a ToVE tower whose experts do something."""
    import torch

    from tove_lvlm.checkpoints.from_config import build_lvlm
    from tove_lvlm.checkpoints.merged import save_merged
    from tove_lvlm.config.model import ModelConfig
    from tove_lvlm.lvlm.lora import collect_merged

    folder = tmp_path_factory.mktemp("eval")
    llm, tower = tiny_lvlm.make_llm(folder / "llm"), tiny.make_tower_yaml(folder / "tower", ["depth", "shapes"])
    torch.manual_seed(0)
    model, processor = build_lvlm(ModelConfig(llm=str(llm), tower=str(tower)))
    tiny.wake(model.model.vision_tower)
    save_merged(folder / "tiny", collect_merged(model), model, processor)
    (folder / "tiny" / "tove_model.json").write_text(json.dumps({"image_aspect_ratio": "square"}))
    return folder / "tiny"


@pytest.fixture(scope="session")
def loaded(checkpoint):
    from tove_lvlm.checkpoints import load_model

    return load_model(checkpoint)


@pytest.fixture(scope="session")
def benchmarks(tmp_path_factory) -> Path:
    """Root of the miniature's benchmarks about five pictures."""
    from tove_lvlm.world.benchmarks import write_benchmarks

    folder = tmp_path_factory.mktemp("world") / "root"
    write_benchmarks(folder, 5, seed=3)
    return folder
