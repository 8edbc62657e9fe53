"""What is logged between two lines: sums over micro-batches, weighed by real images."""

import math
from types import SimpleNamespace

import pytest
import torch

from tove_lvlm.recipes.meter import Meter


def batch(images: int, tokens: int) -> dict[str, int]:
    return {"num_images": images, "num_tokens": tokens}


def test_figures_by_hand():
    meter = Meter(["a", "b"])
    even, one = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])
    meter.add(batch(1, 7), SimpleNamespace(gate_probs=even.expand(1, 4, 2), balance_loss=torch.tensor(0.2)))
    meter.add(batch(1, 5), SimpleNamespace(gate_probs=one.expand(1, 4, 2), balance_loss=torch.tensor(0.4)))
    # Texts alone: the tower ran on an all-zero image, whose gate is not counted.
    meter.add(batch(0, 4), SimpleNamespace(gate_probs=one.expand(1, 4, 2), balance_loss=torch.tensor(0.0)))
    figures = meter.read(torch.device("cpu"))
    assert figures["gate_mass/a"] == pytest.approx(0.75)
    assert figures["gate_mass/b"] == pytest.approx(0.25)
    assert figures["gate_entropy"] == pytest.approx(math.log(2) / 2, rel=1e-5)
    assert figures["balance_loss"] == pytest.approx(0.2)
    assert figures["tokens_per_s"] / figures["images_per_s"] == pytest.approx(16 / 2)


def test_a_model_without_experts_has_no_gate_to_log():
    meter = Meter([])
    meter.add(batch(2, 3), None)
    assert not any(name.startswith(("gate", "balance")) for name in meter.read(torch.device("cpu")))


def test_a_resumed_run_goes_on_with_the_sums():
    meter, other = Meter(["a"]), Meter(["a"])
    meter.add(batch(1, 3), SimpleNamespace(gate_probs=torch.ones(1, 4, 1), balance_loss=torch.tensor(0.25)))
    other.load_state(meter.state())
    other.started = meter.started = 0.0
    assert {name: pytest.approx(value, rel=1e-3) for name, value in meter.read(torch.device("cpu")).items()} == (
        other.read(torch.device("cpu"))
    )
    assert meter.state()["sums"].tolist() == [0.0, 1, 0.25, 1, 1, 3]
