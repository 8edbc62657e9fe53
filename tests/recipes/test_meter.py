"""What is logged between two lines: sums over micro-batches, weighed by real images."""

import math
from types import SimpleNamespace

import pytest
import torch

from tove_lvlm.recipes.meter import Meter


def batch(images: int, dummies: int, tokens: int) -> dict[str, torch.Tensor]:
    pixels = torch.cat([torch.ones(images, 3, 2, 2), torch.zeros(dummies, 3, 2, 2)])
    return {"pixel_values": pixels, "attention_mask": torch.ones(1, tokens, dtype=torch.long)}


def test_figures_by_hand():
    meter = Meter(["a", "b"])
    even, one = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])
    first = torch.stack([even.expand(4, 2), one.expand(4, 2)])  # the second image is a dummy
    meter.add(batch(1, 1, 7), SimpleNamespace(gate_probs=first, balance_loss=torch.tensor(0.2)))
    meter.add(batch(1, 0, 5), SimpleNamespace(gate_probs=one.expand(1, 4, 2), balance_loss=torch.tensor(0.4)))
    figures = meter.read(torch.device("cpu"))
    assert figures["gate_mass/a"] == pytest.approx(0.75)
    assert figures["gate_mass/b"] == pytest.approx(0.25)
    assert figures["gate_entropy"] == pytest.approx(math.log(2) / 2, rel=1e-5)
    assert figures["balance_loss"] == pytest.approx(0.3)
    assert figures["tokens_per_s"] / figures["images_per_s"] == pytest.approx(12 / 2)


def test_a_model_without_experts_has_no_gate_to_log():
    meter = Meter([])
    meter.add(batch(2, 0, 3), None)
    assert not any(name.startswith(("gate", "balance")) for name in meter.read(torch.device("cpu")))


def test_a_resumed_run_goes_on_with_the_sums():
    meter, other = Meter(["a"]), Meter(["a"])
    meter.add(batch(1, 0, 3), SimpleNamespace(gate_probs=torch.ones(1, 4, 1), balance_loss=torch.tensor(0.0)))
    other.load_state(meter.state())
    assert torch.equal(other.sums, meter.sums)
    assert torch.equal(other.mass_K, meter.mass_K)
