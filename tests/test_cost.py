"""Cost of the parts of a tower."""

import time

import pytest
import torch
from torch import nn

from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.config import UserError
from tove_lvlm.cost import ms_per_image, size_of, totals_by_module
from tove_lvlm.tower.cost import measure_cost, tower_sizes


def test_every_part_is_listed_and_they_add_up(tiny_tower):
    costs = measure_cost(tiny_tower, batch_size=2, repeats=2)
    assert list(costs) == ["clip", *tiny_tower.expert_names, "tove_fusion", "tower"]
    whole, parts = costs["tower"], [cost for name, cost in costs.items() if name != "tower"]
    assert whole.parameters == sum(part.parameters for part in parts) == sum(p.numel() for p in tiny_tower.parameters())
    assert whole.memory_bytes == sum(part.memory_bytes for part in parts)
    assert whole.gflops == pytest.approx(sum(part.gflops for part in parts))
    assert all(part.ms > 0 for part in parts)
    assert costs["clip"].memory_bytes >= 4 * costs["clip"].parameters


def test_flops_equal_a_count_by_hand():
    class Tower(nn.Module):
        def __init__(self):
            super().__init__()
            self.config = type("Config", (), {"image_size": 4})
            self.conv = nn.Conv2d(3, 8, kernel_size=2, stride=2, bias=False)

        def forward(self, pixels):
            return self.conv(pixels)

    costs = measure_cost(Tower(), batch_size=3, repeats=1)
    assert costs["clip"].gflops == costs["tower"].gflops == 2 * (3 * 2 * 2) * 8 * (2 * 2) / 1e9
    assert costs["clip"].parameters == 96
    assert costs["clip"].memory_bytes == 384


def test_a_slow_expert_shows_in_its_own_row_and_in_the_whole_per_image(tiny_tower):
    expert = tiny_tower.experts["normals"]
    expert.forward = _slow(expert.forward)
    costs = measure_cost(tiny_tower, batch_size=4, repeats=1)
    assert costs["normals"].ms >= 50  # 200 ms for four images
    assert costs["tower"].ms >= 50


def _slow(forward):
    def slowly(*args, **kwargs):
        time.sleep(0.2)
        return forward(*args, **kwargs)

    return slowly


def test_detached_experts_cost_nothing(tiny_tower):
    before = measure_cost(tiny_tower, batch_size=1, repeats=1)
    tiny_tower.detach("shapes", "cnn")
    after = measure_cost(tiny_tower, batch_size=1, repeats=1)
    assert list(after) == ["clip", "depth", "normals", "tove_fusion", "tower"]
    gone = before["shapes"].parameters + before["cnn"].parameters
    assert after["tower"].parameters == before["tower"].parameters - gone
    assert after["tower"].gflops < before["tower"].gflops


def test_moved_sums_over_calls_and_leaves_no_hook():
    part, idle, ticks = nn.Identity(), nn.Identity(), iter([1, 3, 10, 15])
    with totals_by_module([part, idle], lambda: next(ticks)) as sums:
        part(torch.zeros(1))
        part(torch.zeros(1))
    assert sums == {part: 7, idle: 0}
    part(torch.zeros(1))  # another reading would raise StopIteration


def test_numbers_below_one_are_refused(tiny_tower):
    with pytest.raises(UserError, match="repeats is 0"):
        measure_cost(tiny_tower, repeats=0)


def test_a_network_s_size_by_hand_is_that_of_one_image():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, kernel_size=2, stride=2, bias=False)
            self.register_buffer("kept", torch.zeros(5, dtype=torch.int64))
            self.register_buffer("loose", torch.zeros(7), persistent=False)

        def forward(self, pixels):
            return self.conv(pixels)

    with torch.device("meta"):
        size = size_of(Net(), torch.zeros(2, 3, 4, 4))
    assert size.parameters == 96
    assert size.gflops == 2 * (3 * 2 * 2) * 8 * (2 * 2) / 1e9
    assert size.bf16_bytes == 2 * 96 + 8 * 5 + 2 * 7
    assert size.float32_bytes == 4 * 96 + 8 * 5


def test_sizes_on_the_meta_device_are_those_of_the_real_tower(tiny_tower):
    with torch.device("meta"):
        unloaded = type(tiny_tower)(tiny_tower.config)
    sizes, real = tower_sizes(unloaded), tower_sizes(tiny_tower)
    assert sizes == real
    assert list(sizes) == ["clip", *tiny_tower.expert_names, "tove_fusion", "tower"]
    measured = measure_cost(tiny_tower, batch_size=1, repeats=1)
    for name, cost in measured.items():
        assert (sizes[name].parameters, sizes[name].gflops) == (cost.parameters, cost.gflops)


def test_time_is_per_image_and_a_median():
    waits = iter([0.0, 0.04, 0.08, 0.3])  # to warm up, then three timed ones

    class Net(nn.Module):
        def forward(self, pixels):
            time.sleep(next(waits))

    assert 40 <= ms_per_image(Net(), torch.zeros(2, 3, 4, 4), repeats=3) < 150


def test_attention_is_counted_on_the_cpu_whatever_torchs_own_table_has(monkeypatch):
    from torch.utils import flop_counter as torchs

    from tove_lvlm import cost

    query = torch.randn(1, 2, 8, 16)
    with cost.flop_counter() as counter, torch.no_grad():
        torch.nn.functional.scaled_dot_product_attention(query, query, query)
    assert counter.get_total_flops() == 2 * 2 * (2 * 8 * 8 * 16)  # two products, two heads, 2 FLOPs a step
    older = {op: formula for op, formula in torchs.flop_registry.items() if "for_cpu" not in str(op)}
    monkeypatch.setattr(cost, "flop_registry", older)
    monkeypatch.setattr(torchs, "flop_registry", older)
    with cost.flop_counter() as again, torch.no_grad():
        torch.nn.functional.scaled_dot_product_attention(query, query, query)
    assert again.get_total_flops() == counter.get_total_flops()


def test_plain_clip_and_the_mode_stays(clip_only):
    clip = open_checkpoint(clip_only).model.model.vision_tower.train()
    costs = measure_cost(clip, batch_size=1, repeats=1)
    assert list(costs) == ["clip", "tower"]
    assert costs["clip"].gflops == costs["tower"].gflops > 0
    assert clip.training
