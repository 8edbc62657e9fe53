"""The hosts with a tower on SigLIP: LLaVA saves and loads it, LAVIS trains it, the base model and the cache take it."""

import copy

import pytest
import torch
import yaml

from helpers import base_runs, merge_runs, tiny_bases, tiny_llava, tiny_towers, training
from tove_lvlm import build_tower
from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.hosts.lavis.tower import ToVEVisualEncoder

BASE = {"family": "transformers", "pretrained": "./base", "layer": -2}


@pytest.fixture(scope="module")
def tower_yaml(tmp_path_factory):
    folder = tmp_path_factory.mktemp("siglip")
    tiny_bases.make_base(folder / "base", "siglip_vision_model")
    return tiny_bases.make_tower_on(folder, BASE)


def test_llava_saves_it_and_loads_the_same_model(tower_yaml, llm, tmp_path):
    llava = tiny_llava.load()
    # LLaVA's default for CLIP; the base's own `layer` counts.
    model = tiny_llava.build(llava, llm, f"tove:{tower_yaml}", mm_vision_select_layer=-1)
    folder = tiny_llava.save(llava, model, tmp_path / "llava-tove", "merged")
    loaded, processor = tiny_llava.reload(llava, folder, None)
    before = tiny_llava.halve(copy.deepcopy(model))
    assert torch.equal(tiny_llava.logits(loaded, torch.float16), tiny_llava.logits(before, torch.float16))
    assert list(processor.image_mean) == tiny_towers.HALF
    held = loaded.get_vision_tower().vision_tower
    held.detach(*held.expert_names)
    assert not torch.equal(tiny_llava.logits(loaded, torch.float16), tiny_llava.logits(before, torch.float16))


def test_lavis_trains_the_fusion_alone(tower_yaml):
    encoder = ToVEVisualEncoder(tiny_towers.wake(build_tower(tower_yaml)), source="tower.yaml")
    tokens = encoder(tiny_towers.pixels())
    assert tokens.shape == (2, 16, encoder.num_features)
    tokens.square().mean().backward()
    trained = {name for name, parameter in encoder.named_parameters() if parameter.grad is not None}
    assert trained
    assert all(name.startswith("tower.tove_fusion.") for name in trained)


@pytest.mark.usefixtures("one_rank")
def test_the_base_model_trains_with_a_cache_and_is_merged(tower_yaml, tmp_path):
    world = base_runs.make_world(tmp_path / "world")
    path = world / "pretrain_base.yaml"
    run = yaml.safe_load(path.read_text())
    run["model"]["tower"] = str(tower_yaml)
    path.write_text(yaml.safe_dump(run))
    stage, out = base_runs.STAGES["pretrain_base"], world / "out-pretrain_base"
    plain = [f"train.output_dir={world / 'plain'}", "data.augment=false"]
    assert training.run_here(stage, path, plain) == 0
    for place in (world / "empty", out):  # the second reads what the first has kept
        cache = [f"train.expert_cache={world / 'cache'}", "train.expert_cache_dtype=float32", "data.augment=false"]
        assert training.run_here(stage, path, [*cache, f"train.output_dir={place}"]) == 0
        assert training.same(training.weights(place), training.weights(world / "plain"))
    merge = merge_runs.write_yaml(world, out, next(world.rglob("images")), max_steps=2)
    assert merge_runs.run(merge) == 0
    merged = open_checkpoint(world / "out" / "lvlm")
    assert merged.tower.config.base["family"] == "transformers"
    assert merged.tower.expert_names == []
    student = training.weights(world / "out" / "clip")
    held = merged.tower.clip.backbone.state_dict()
    name = "encoder.layers.0.mlp.fc1.weight"
    written = next(tensor for key, tensor in student.items() if key.endswith(name))
    torch.testing.assert_close(held[name], written.to(held[name].dtype))
