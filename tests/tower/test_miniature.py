"""The shipped tower: `projects/miniature/tower.yaml` with the trained parts that come with the package."""

import pytest
import torch
from transformers import CLIPVisionModel

from helpers.paths import ROOT
from tove_lvlm import ToVEImageProcessor, build_tower
from tove_lvlm.config.sources import resolve_source
from tove_lvlm.tower.from_yaml import read_tower_yaml
from tove_lvlm.world.render import render
from tove_lvlm.world.scene import sample, split_seeds

YAML = ROOT / "projects" / "miniature" / "tower.yaml"


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    return build_tower(YAML)


@pytest.fixture(scope="module")
def worlds():
    """Held-out scenes and their pixels as the tower wants them."""
    return render(sample(split_seeds("heldout", 32)))


@pytest.fixture(scope="module")
def pixels(tower, worlds) -> torch.Tensor:
    processor = ToVEImageProcessor.for_tower(tower.config)
    return processor(list(worlds.rgb), return_tensors="pt")["pixel_values"]


def test_yaml():
    config = read_tower_yaml(YAML)
    assert [expert.name for expert in config.experts] == ["depth", "normals", "edges", "shapes"]
    assert [expert.fields["output"] for expert in config.experts] == ["map", "map", "map", "features"]
    assert config.fusion.zero_init


def test_it_starts_as_the_shipped_clip(tower, pixels):
    clip = CLIPVisionModel.from_pretrained(resolve_source("shipped:miniature/clip"), dtype=torch.float32)
    with torch.no_grad():
        expected = clip.eval()(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        output = tower(pixels)
    assert output.last_hidden_state.shape == (32, 64, 96)
    assert torch.equal(output.last_hidden_state, expected)


def test_sources_are_portable(tower):
    assert tower.sources["experts"]["depth"]["source"] == "shipped:miniature/depth"
    assert all(entry["sha256"] for entry in tower.sources["experts"].values())


def test_experts_know_held_out_worlds(tower, worlds, pixels):
    with torch.no_grad():
        depth = tower.experts["depth"](pixels)[:, 0]
        normals = torch.nn.functional.normalize(tower.experts["normals"](pixels), dim=1)
    metres = torch.tensor(worlds.depth)
    correlation = torch.corrcoef(torch.stack([depth.flatten(), metres.log().flatten()]))[0, 1]
    assert correlation < -0.9, "the map is inverse-log depth"
    truth = torch.tensor(worlds.normals).permute(0, 3, 1, 2)
    surface = truth.norm(dim=1) > 0.5
    assert (normals * truth).sum(1)[surface].mean() > 0.9
