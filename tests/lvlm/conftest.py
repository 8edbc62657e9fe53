"""A tiny world shared by the tests of lvlm/."""

import pytest
import tiny
import tiny_lvlm


@pytest.fixture(scope="session")
def llm(tmp_path_factory):
    return tiny_lvlm.make_llm(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="session")
def tower_yaml(tmp_path_factory):
    return tiny.make_tower_yaml(tmp_path_factory.mktemp("tower"))


@pytest.fixture
def built(llm, tower_yaml):
    """(model, processor) with a ToVE tower, `tove_fusion` awake, projector on a visible scale."""
    import torch

    from tove_lvlm.checkpoints.from_config import build_lvlm
    from tove_lvlm.config.model import ModelConfig

    torch.manual_seed(0)
    model, processor = build_lvlm(ModelConfig(llm=str(llm), tower=str(tower_yaml)))
    tiny.wake(model.model.vision_tower)
    return model.eval(), processor
