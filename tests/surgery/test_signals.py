"""Cheap signals against plain computations: finite differences of the loss, and the figures of `tove usage`."""

import pytest
import torch

from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.surgery.probe import Probe
from tove_lvlm.surgery.probe_data import read_probe_data
from tove_lvlm.surgery.signals import measure_signals
from tove_lvlm.surgery.usage import measure_usage

STEP = 1e-2


class Moved(Probe):
    """A probe whose t_fuse is moved by something."""

    def change(self, encoded) -> torch.Tensor:
        raise NotImplementedError

    def _visual_tokens(self, encoded, names):
        return self._language.visual_tokens(self.fused(encoded, names) + self.step * self.change(encoded))

    def fused(self, encoded, names) -> torch.Tensor:
        grids = {name: grid for name, grid in encoded.grids.items() if name in names}
        return self.tower.tove_fusion(encoded.t_clip_IND, grids, torch.ones(len(encoded.t_clip_IND))).t_fuse_BND

    def slope(self) -> float:
        """Of the loss, by central differences."""
        losses = []
        for self.step in (STEP, -STEP):
            (quality,) = self.quality([self.tower.attached_names])
            losses.append(quality.loss)
        return (losses[0] - losses[1]) / (2 * STEP)


@pytest.fixture(scope="module")
def probe(trained, world) -> Probe:
    return Probe(open_checkpoint(trained), read_probe_data(data=world / "questions.jsonl"), batch_size=4)


@pytest.fixture(scope="module")
def signals(probe):
    return measure_signals(probe)


def test_gate_mass_and_norm_are_those_of_usage(signals, trained, world):
    report = measure_usage(open_checkpoint(trained), read_probe_data(data=world / "questions.jsonl"), batch_size=4)
    assert list(signals) == list(report["experts"])
    for name, of in signals.items():
        assert of.gate_mass == pytest.approx(report["experts"][name]["gate_mass"], abs=1e-6)
        assert of.relative_norm == pytest.approx(report["experts"][name]["relative_norm"], abs=1e-6)


def test_first_order_estimates_are_slopes_of_the_loss(signals, probe, trained):
    for name, of in signals.items():

        class Without(Moved):
            def change(self, encoded, gone=name):
                kept = [other for other in self.tower.attached_names if other != gone]
                return self.fused(encoded, kept) - self.fused(encoded, self.tower.attached_names)

        class WithoutTerm(Moved):
            def change(self, encoded, gone=name):
                fusion = self.tower.tove_fusion
                full = fusion(encoded.t_clip_IND, encoded.grids, torch.ones(len(encoded.t_clip_IND)))
                return -fusion.terms(encoded.t_clip_IND, encoded.grids, full.gate_BNK)[gone]

        for kind, found in ((Without, of.first_order), (WithoutTerm, of.first_order_term)):
            moved = kind(open_checkpoint(trained), probe.data, batch_size=4)
            slope = moved.slope()
            assert abs(slope) > 1e-4, "a slope of nothing would agree with anything"
            assert found == pytest.approx(slope, rel=0.03, abs=2e-5), (name, kind.__name__)


def test_answer_norm_weights_tokens_with_the_gradients_length(signals, probe):
    """By hand, over the same batches."""
    sums, weight = dict.fromkeys(signals, 0.0), 0.0
    fusion = probe.tower.tove_fusion
    for batch in probe.encode(range(probe.num_batches)):
        gradient, _ = probe.loss_gradient(batch)
        length = gradient.square().sum(-1).sqrt()
        full = fusion(batch.t_clip_IND, batch.grids, torch.ones(len(batch.t_clip_IND)))
        for name, term in fusion.terms(batch.t_clip_IND, batch.grids, full.gate_BNK).items():
            relative = term.detach().norm(dim=-1) / batch.t_clip_IND.norm(dim=-1)
            sums[name] += float((relative * length).sum())
        weight += float(length.sum())
    for name, of in signals.items():
        assert of.answer_norm == pytest.approx(sums[name] / weight, rel=1e-4)


def test_a_model_without_experts_or_answers_is_refused(clip_only, trained, world):
    for folder, data in (
        (clip_only, read_probe_data(data=world / "questions.jsonl")),
        (trained, read_probe_data(images=world / "images")),
    ):
        with pytest.raises(ValueError, match="signals need a gated tower"):
            measure_signals(Probe(open_checkpoint(folder), data))
