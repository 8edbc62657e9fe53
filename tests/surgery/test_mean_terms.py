"""A detached expert's mean term in its place: what the tower then computes, in every kind of checkpoint, and back."""

import shutil

import pytest
import torch

from helpers import llava_runs, tiny_checkpoints, tiny_towers, training
from helpers.tiny_towers import hashes
from tove_lvlm import ToVEVisionModel
from tove_lvlm.checkpoints import open_checkpoint, save_with_experts
from tove_lvlm.config import ConfigError
from tove_lvlm.surgery.attach import attach
from tove_lvlm.surgery.detach import detach
from tove_lvlm.surgery.mean_terms import measure_mean_terms
from tove_lvlm.surgery.probe import Probe
from tove_lvlm.surgery.probe_data import read_probe_data

GONE, LEFT = ("depth", "shapes"), ("normals", "cnn")


@pytest.fixture(scope="module")
def data(world):
    return read_probe_data(data=world / "questions.jsonl", image_folder=world / "images", limit=12)


def terms_of(tower, pixels) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """(t_clip, g_k e_k of each expert), by hand out of the tower's modules."""
    frozen = tower.encode_frozen(pixels)
    fusion = tower.tove_fusion
    gate_BNK = fusion(*frozen).gate_BNK
    unit_BN1 = fusion.scale * frozen.t_clip_BND.square().mean(-1, keepdim=True).sqrt()
    found = {}
    for k, name in enumerate(tower.expert_names):
        hidden = fusion.transfers[name](frozen.grids[name])
        found[name] = gate_BNK[..., k, None] * unit_BN1 * fusion.shared_out(hidden)
    return frozen.t_clip_BND, found


@torch.no_grad()
def test_the_others_stay_what_they_were_and_a_constant_stands_for_what_is_gone(tiny_tower):
    tower = tiny_towers.wake(tiny_tower)
    pixels = tiny_towers.pixels(3)
    t_clip, terms = terms_of(tower, pixels)
    means = {name: terms[name].mean((0, 1)) for name in GONE}
    probs = tower(pixels).gate_probs
    tower.detach(*GONE, mean_terms=means)
    output = tower(pixels)
    expected = t_clip + sum(terms[name] for name in LEFT) + sum(means.values())
    torch.testing.assert_close(output.last_hidden_state, expected, atol=1e-4, rtol=1e-5)
    gone = [tower.expert_names.index(name) for name in GONE]
    left = [tower.expert_names.index(name) for name in LEFT]
    assert not output.gate_probs[..., gone].any(), "exactly 0"
    torch.testing.assert_close(output.gate_probs[..., left], probs[..., left])
    assert tower.config.mean_terms == list(GONE)
    tower.detach(*LEFT)
    assert torch.equal(tower(pixels).last_hidden_state, t_clip), "without any expert it is the base, bit for bit"
    tower.attach(*LEFT)
    assert torch.equal(tower(pixels).last_hidden_state, output.last_hidden_state)


@torch.no_grad()
def test_attached_again_it_is_what_it_was_and_the_constant_is_gone(tiny_tower, tmp_path):
    tower = tiny_towers.wake(tiny_tower)
    pixels = tiny_towers.pixels()
    before = tower(pixels).last_hidden_state
    tower.detach(*GONE, mean_terms={name: torch.full((tiny_towers.WIDTH,), 0.5) for name in GONE})
    tower.save_pretrained(tmp_path / "tower")
    again = ToVEVisionModel.from_pretrained(tmp_path / "tower")
    assert torch.equal(again(pixels).last_hidden_state, tower(pixels).last_hidden_state)
    tower.attach("depth")
    assert tower.config.mean_terms == ["shapes"]
    tower.detach("depth")
    with_one = tower(pixels).last_hidden_state
    assert not torch.equal(with_one, again(pixels).last_hidden_state), "its share is shared now"
    tower.attach()
    assert torch.equal(tower(pixels).last_hidden_state, before)
    assert not any("mean_terms" in name for name, _ in tower.named_parameters())


def test_it_learns_with_the_fusion_and_dropout_leaves_it(tiny_tower):
    tower = tiny_towers.wake(tiny_tower)
    tower.detach(*GONE, mean_terms={name: torch.full((tiny_towers.WIDTH,), 0.5) for name in GONE})
    tower.requires_grad_(True).train()
    tower.tove_fusion.gate.expert_dropout = 1.0
    output = tower(tiny_towers.pixels())
    output.last_hidden_state.sum().backward()
    num_tokens = output.last_hidden_state[..., 0].numel()
    for name in GONE:
        assert torch.equal(tower.tove_fusion.mean_terms[name].grad, torch.full((tiny_towers.WIDTH,), float(num_tokens)))
    left = [tower.expert_names.index(name) for name in LEFT]
    assert (output.gate_probs[..., left] > 0).all(), "where all would be dropped none is"


def test_what_does_not_fit_is_said_and_changes_nothing(tiny_tower):
    mean_D = torch.zeros(tiny_towers.WIDTH)
    for names, means, message in [
        (("depth",), {"cnn": mean_D}, "`cnn` is attached"),
        (("depth",), {"depth": mean_D[:3]}, r"has shape \(3,\); expected \(32,\)"),
        (("depth",), {"nothing": mean_D}, "no expert `nothing`"),
    ]:
        with pytest.raises(ValueError, match=message):
            tiny_tower.detach(*names, mean_terms=means)
        assert (tiny_tower.config.detached, tiny_tower.config.mean_terms) == ([], [])
    with pytest.raises(ConfigError, match="`mean_terms` names `depth`, which is not detached"):
        type(tiny_tower.config)(**{**tiny_tower.config.to_dict(), "mean_terms": ["depth"]})


@torch.no_grad()
def test_measured_as_the_mean_over_every_token_of_the_images(trained, data):
    loaded = open_checkpoint(trained)
    means = measure_mean_terms(Probe(loaded, data, batch_size=5))
    batches = list(Probe(loaded, data, batch_size=64).encode([0]))
    fusion = loaded.tower.tove_fusion
    gate = fusion(batches[0].t_clip_IND, batches[0].grids, torch.ones(len(batches[0].t_clip_IND))).gate_BNK
    for name, term_IND in fusion.terms(batches[0].t_clip_IND, batches[0].grids, gate).items():
        torch.testing.assert_close(means[name], term_IND.mean((0, 1)), atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["tower", "stage1", "adapter", "merged"])
def test_there_and_back_in_two_steps(checkpoints, data, tmp_path, kind):
    """What stood in a place stays when another goes, and the original comes back byte for byte."""
    options = {"data": data, "device": "cpu", "seconds": 0}
    first = detach(checkpoints[kind], tmp_path / "one", ["depth"], **options)
    second = detach(tmp_path / "one", tmp_path / "two", ["shapes"], **options)
    assert (first["mean_terms"], second["mean_terms"]) == (["depth"], list(GONE))
    one, two = (open_checkpoint(tmp_path / name).tower for name in ("one", "two"))
    assert torch.equal(one.tove_fusion.mean_terms["depth"], two.tove_fusion.mean_terms["depth"])
    attach(tmp_path / "two", tmp_path / "some", checkpoints[kind], ["shapes"])
    pixels = tiny_towers.pixels()
    assert torch.equal(
        open_checkpoint(tmp_path / "some").tower(pixels).last_hidden_state, one(pixels).last_hidden_state
    )
    attach(tmp_path / "two", tmp_path / "back", checkpoints[kind])
    original, back = hashes(checkpoints[kind]), hashes(tmp_path / "back")
    config = [name for name in original if name.endswith(("config.json", "tove_model.json"))]  # an empty list more
    assert {name: back[name] for name in back if name not in config} == {
        name: original[name] for name in original if name not in config and name in back
    }


@torch.no_grad()
def test_shards_and_their_index(built, data, tmp_path):
    model, processor = built
    sharded = tiny_checkpoints.save(tmp_path / "shards", model, processor, max_shard_size="60KB")
    assert (sharded / "model.safetensors.index.json").is_file()
    detach(sharded, tmp_path / "out", ["depth"], data=data, device="cpu", seconds=0)
    saved = open_checkpoint(tmp_path / "out")
    assert saved.tower.config.mean_terms == ["depth"]
    attach(tmp_path / "out", tmp_path / "back", sharded)
    back = open_checkpoint(tmp_path / "back")
    assert torch.equal(tiny_checkpoints.logits(back.model), tiny_checkpoints.logits(open_checkpoint(sharded).model))


def test_without_data_and_when_forgotten_the_others_share(checkpoints, data, tmp_path):
    options = {"device": "cpu", "seconds": 0}
    assert detach(checkpoints["merged"], tmp_path / "named", ["depth"], **options)["mean_terms"] == []
    detach(checkpoints["merged"], tmp_path / "kept", ["depth"], data=data, **options)
    report = detach(tmp_path / "kept", tmp_path / "gone", ["shapes"], data=data, forget=True, **options)
    assert report["mean_terms"] == []
    tower = open_checkpoint(tmp_path / "gone").tower
    assert tower.expert_names == list(LEFT)
    assert not any("mean_terms" in name for name, _ in tower.named_parameters())


@torch.no_grad()
def test_the_adapter_in_a_merged_folder_and_a_tower_in_memory(checkpoints, data, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(checkpoints["merged"], folder)
    shutil.copytree(checkpoints["adapter"], folder / "adapter")
    report = detach(folder, tmp_path / "out", ["depth"], data=data, device="cpu", seconds=0)
    assert report["written"] == ["merged", "adapter"]
    whole, adapter = (open_checkpoint(tmp_path / "out" / name) for name in ("", "adapter"))
    pixels = tiny_towers.pixels()
    expected = whole.tower(pixels).last_hidden_state
    assert torch.equal(adapter.tower(pixels).last_hidden_state, expected)
    loaded = open_checkpoint(folder)
    loaded.tower.detach("depth", mean_terms=dict(whole.tower.tove_fusion.mean_terms))
    save_with_experts(loaded, tmp_path / "saved")
    assert torch.equal(open_checkpoint(tmp_path / "saved").tower(pixels).last_hidden_state, expected)


@pytest.mark.usefixtures("one_rank")
def test_stage_2_goes_on_from_a_stage_1_with_a_mean_term(data, tmp_path):
    """It learns with the rest of the fusion, and lies in the adapter and in the merged model."""
    llava_runs.make_world(tmp_path)
    yaml_of = {stage: tmp_path / f"{stage}.yaml" for stage in llava_runs.SCRIPTS}
    assert training.run_here(llava_runs.STAGES["pretrain"], yaml_of["pretrain"], ["train.max_steps=2"]) == 0
    less = tmp_path / "less"
    detach(tmp_path / "out-pretrain", less, ["depth"], data=data, device="cpu", seconds=0)
    start = ["train.max_steps=2", f"model.pretrain_mm_mlp_adapter={less}"]
    assert training.run_here(llava_runs.STAGES["finetune"], yaml_of["finetune"], start) == 2, "depth is attached"
    assert (
        training.run_here(llava_runs.STAGES["finetune"], yaml_of["finetune"], [*start, "model.detached=[depth]"]) == 0
    )
    before = open_checkpoint(less).tower
    for name in ("", "adapter"):
        tower = open_checkpoint(tmp_path / "out-finetune" / name).tower
        assert tower.config.mean_terms == ["depth"]
        moved = tower.tove_fusion.mean_terms["depth"] - before.tove_fusion.mean_terms["depth"]
        assert 0 < moved.abs().max() < 0.1
