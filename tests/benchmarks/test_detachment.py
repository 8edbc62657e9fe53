"""The study's detachment: what stays in an expert's place, and how signals are held against leave-one-out."""

import json
import shutil

import pytest
import torch
from study import detachment

from helpers.tiny_lvlm import WORDS, make_data
from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.surgery.mean_terms import measure_mean_terms
from tove_lvlm.surgery.probe import Probe
from tove_lvlm.surgery.probe_data import read_probe_data


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """`probe/` and `heldout/`, ten questions each about ten pictures."""
    folder = tmp_path_factory.mktemp("world")
    probe = make_data(folder / "probe")
    rows = [
        {"question_id": f"q{i}", "image": f"{i}.png", "text": f"is the {WORDS[i]} ?", "answer": WORDS[i], "family": "f"}
        for i in range(10)
    ]
    (probe / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    shutil.copytree(probe, folder / "heldout")
    return folder


def probe_of(model, world) -> Probe:
    return Probe(open_checkpoint(model), read_probe_data(world / "probe" / "questions.jsonl"))


@pytest.fixture(scope="module")
def model(checkpoints):
    return checkpoints["merged"]


def test_mean_tokens_are_over_all_tokens_of_all_pictures(model, world):
    probe = probe_of(model, world)
    means = detachment.mean_tokens(probe)
    (batch,) = probe.encode(range(probe.num_batches))
    with torch.no_grad():
        tokens = probe.tower.tove_fusion._transferred(batch.grids)
    assert list(means) == probe.tower.attached_names
    for name, mean in means.items():
        torch.testing.assert_close(mean, tokens[name].flatten(0, 1).mean(0))


@pytest.mark.parametrize("way", ["mean_term", "mean_token"])
def test_a_mean_takes_the_place_of_its_own_expert_alone(model, world, way):
    plain = probe_of(model, world)
    names = tuple(plain.tower.attached_names)
    loaded, data = open_checkpoint(model), read_probe_data(world / "probe" / "questions.jsonl")
    if way == "mean_term":
        means = measure_mean_terms(plain)
        probe = Probe(loaded, data, mean_terms=means)
    else:
        means = detachment.mean_tokens(plain)
        probe = detachment.MeanTokenProbe(loaded, data, means)
    with torch.no_grad():
        (batch,) = plain.encode(range(plain.num_batches))
        torch.testing.assert_close(probe._visual_tokens(batch, names), plain._visual_tokens(batch, names))
        fusion = loaded.tower.tove_fusion
        full = fusion(batch.t_clip_IND, batch.grids, torch.ones(len(batch.t_clip_IND)))
        terms = fusion.terms(batch.t_clip_IND, batch.grids, full.gate_BNK)
        gone = names[0]
        unit = loaded.tower.config.fusion_settings.transfer_scale * batch.t_clip_IND.square().mean(-1, True).sqrt()
        share = full.gate_BNK[..., [0]] * unit if way == "mean_token" else 1.0
        expected = full.t_fuse_BND - terms[gone] + share * means[gone]
        found = probe._visual_tokens(batch, names[1:])
        torch.testing.assert_close(found, probe._language.visual_tokens(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_everything_of_one_model(model, world, dtype, monkeypatch):
    def in_dtype(folder):
        loaded = open_checkpoint(folder)
        loaded.model.to(dtype)
        return loaded

    monkeypatch.setattr(detachment, "open_checkpoint", in_dtype)
    found = detachment.detachment(model, world)
    names = probe_of(model, world).tower.attached_names
    assert sorted(found["order"]) == sorted(names)
    for way in detachment.WAYS:
        assert len(found[way]) == len(names) + 1
        assert found[way][0] == found["overall"][0]
    assert set(found["signals"]) == set(found["loss_change"]) == set(found["single"]) == set(names)


def test_rank_correlation_is_spearmans():
    assert detachment.rank_correlation([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
    assert detachment.rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert detachment.rank_correlation([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)
    assert detachment.rank_correlation([1, 1, 2], [1, 2, 3]) == pytest.approx(0.8660254)
    assert detachment.rank_correlation([1, 1, 1], [1, 2, 3]) == 0


def test_agreement_is_a_mean_over_runs():
    def run(mass: list[float]) -> dict:
        names = ["a", "b", "c"]
        return {
            "overall": [0.9, 0.8, 0.5, 0.3],
            "single": {"a": 0.85, "b": 0.8, "c": 0.6},
            "loss_change": {"a": 0.1, "b": 0.2, "c": 0.9},
            "signals": {name: {"gate_mass": value} for name, value in zip(names, mass, strict=True)},
        }

    found = detachment.agreement({"right": run([0.1, 0.2, 0.7]), "wrong": run([0.7, 0.2, 0.1]), "old": {"order": []}})
    assert found["gate_mass"] == {"loss": 0.0, "score": 0.0, "least": 0.5}
    assert found["loss_change"] == {"loss": 1.0, "score": 1.0, "least": 1.0}
    assert detachment.agreement({}) == {}
