"""A tower with a cache: the same numbers, and which backbones run."""

import copy

import pytest
import torch

from helpers import tiny_towers
from tove_lvlm.config import UserError
from tove_lvlm.feature_cache import CacheFolder, FeatureCache


@pytest.fixture
def cached(tower, tmp_path):
    """`cached(...)`: a copy of the tower with a newly opened cache, which counts the images each backbone sees."""

    def cached(dtype="float32", **options):
        made = copy.deepcopy(tower)
        made.feature_cache = FeatureCache(CacheFolder(tmp_path / "cache"), made, dtype, **options)
        made.seen = {"clip": 0} | dict.fromkeys(made.experts, 0)

        def count(name):
            return lambda module, args: made.seen.update({name: made.seen[name] + len(args[0])})

        made.clip.embeddings.register_forward_pre_hook(count("clip"))
        for name, expert in made.experts.items():
            expert.register_forward_pre_hook(count(name))
        return made

    return cached


@torch.no_grad()
def fused(tower, pixels):
    return tower(pixels).last_hidden_state


def test_float32_gives_the_towers_own_bits_and_runs_each_backbone_once(tower, cached):
    pixels = tiny_towers.pixels(6)
    expected = fused(tower, pixels)
    first = cached()
    assert torch.equal(fused(first, pixels), expected)
    assert torch.equal(fused(first, pixels), expected)
    assert first.seen == dict.fromkeys(["clip", *tiny_towers.EXPERT_NAMES], 6)
    second = cached()
    assert torch.equal(fused(second, pixels), expected)
    assert set(second.seen.values()) == {0}
    assert (second.feature_cache.num_read, second.feature_cache.num_computed) == (30, 0)


@pytest.mark.parametrize(("dtype", "error"), [("float16", 3e-4), ("int8", 1e-2)])
def test_what_was_just_computed_is_what_will_be_read(tower, cached, dtype, error):
    pixels = tiny_towers.pixels(6)
    exact = fused(tower, pixels)
    computed, read = fused(cached(dtype), pixels), fused(cached(dtype), pixels)
    assert torch.equal(computed, read)
    assert 0 < float((computed - exact).norm() / exact.norm()) < error


def test_only_what_is_missing_runs(cached):
    pixels = tiny_towers.pixels(6)
    fused(cached(), pixels[:4])
    tower = cached()
    mixed = fused(tower, pixels[[5, 1, 4, 0]])
    assert set(tower.seen.values()) == {2}
    torch.testing.assert_close(mixed, fused(cached(), pixels)[[5, 1, 4, 0]], rtol=0, atol=0)
    torch.testing.assert_close(mixed[[1, 3]], fused(cached(), pixels[:2])[[1, 0]], rtol=0, atol=0)


def test_a_tower_with_fewer_or_other_experts_uses_what_it_shares(tower, cached, tmp_path):
    pixels = tiny_towers.pixels(4)
    small = cached()
    small.detach("normals", "cnn")
    fused(small, pixels)
    assert (small.seen["normals"], small.seen["cnn"]) == (0, 0)
    large = cached()
    assert torch.equal(fused(large, pixels), fused(tower, pixels))
    assert large.seen == {"clip": 0, "depth": 0, "normals": 4, "shapes": 0, "cnn": 4}
    again = cached()
    again.detach("depth")
    again.feature_cache = FeatureCache(CacheFolder(tmp_path / "cache"), again, "float32")
    again.attach("depth")
    assert torch.equal(fused(again, pixels), fused(tower, pixels))
    assert set(again.seen.values()) == {0}


def test_changed_weights_are_computed_anew(tower, cached):
    pixels = tiny_towers.pixels(3)
    fused(cached(), pixels)
    with torch.no_grad():
        next(tower.experts["depth"].parameters()).mul_(1.5)
    changed = cached()
    assert torch.equal(fused(changed, pixels), fused(tower, pixels))
    assert changed.seen == {"clip": 0, "depth": 3, "normals": 0, "shapes": 0, "cnn": 0}


def test_bfloat16_and_autocast_have_entries_of_their_own(cached):
    pixels = tiny_towers.pixels(2)
    half = cached("float16").bfloat16()
    half.feature_cache = FeatureCache(half.feature_cache.folder, half, "float16")
    plain = fused(half, pixels.bfloat16())
    assert plain.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        fused(half, pixels.bfloat16())
    assert set(half.seen.values()) == {4}
    assert torch.equal(fused(half, pixels.bfloat16()), plain)
    assert set(half.seen.values()) == {4}


def test_dropout_balance_and_gradients_come_after_the_cache(tower, cached):
    pixels = tiny_towers.pixels(4)
    pixels[3] = 0  # a host's dummy
    results = []
    for made in (tower, cached(), cached()):
        made.train()
        torch.manual_seed(5)
        out = made(pixels)
        (out.last_hidden_state.square().sum() + out.balance_loss).backward()
        gradients = {name: p.grad.clone() for name, p in made.tove_fusion.named_parameters() if p.grad is not None}
        results.append((out.last_hidden_state, out.gate_probs, out.balance_loss, gradients))
    for tokens, gate, balance, gradients in results[1:]:
        assert torch.equal(tokens, results[0][0])
        assert torch.equal(gate, results[0][1])
        assert torch.equal(balance, results[0][2])
        assert gradients.keys() == results[0][3].keys()
        assert all(torch.equal(gradient, results[0][3][name]) for name, gradient in gradients.items())


def test_clip_can_be_left_to_run(tower, cached):
    pixels = tiny_towers.pixels(3)
    for seen in (3, 0):
        made = cached(with_clip=False)
        assert torch.equal(fused(made, pixels), fused(tower, pixels))
        assert made.seen["clip"] == 3
        assert made.seen["depth"] == seen


def test_features_that_are_no_numbers_are_given_and_not_kept(tower, cached):
    pixels = tiny_towers.pixels(3)
    pixels[1, 0, 0, 0] = float("nan")
    for _ in range(2):
        made = cached()
        out = fused(made, pixels)
        assert torch.equal(torch.isnan(out), torch.isnan(fused(tower, pixels)))
        assert torch.equal(out[[0, 2]], fused(tower, pixels)[[0, 2]])
    assert made.seen["depth"] == 1


def test_a_part_that_is_trained_is_refused(tower, tmp_path):
    tower.experts["depth"].requires_grad_(True)
    with pytest.raises(UserError, match="`depth` has trainable weights"):
        FeatureCache(CacheFolder(tmp_path / "cache"), tower)
    with pytest.raises(UserError, match="dtype `float8` is unknown"):
        FeatureCache(CacheFolder(tmp_path / "cache"), tower, "float8")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_what_was_computed_comes_back(tower, tmp_path, dtype):
    tower = tower.to("cuda", dtype)
    pixels = tiny_towers.pixels(6).to("cuda", dtype)
    expected = fused(tower, pixels)
    tower.feature_cache = FeatureCache(CacheFolder(tmp_path / "cache"), tower, "float32")
    for _ in range(2):
        found = fused(tower, pixels)
        assert (found.device.type, found.dtype) == ("cuda", dtype)
        assert torch.equal(found, expected)
    assert tower.feature_cache.num_read == 30
