"""Who should be detached, and what takes its place: greedy order, cheap signals, three ways to go on without an expert.

    renormalised    the gate shares the expert's mass among the others (`tove detach --renormalise`)
    mean_term       its mean term E[g_k e_k] stays in its place, one vector for every token; the others' shares stay
                    (what `tove detach` does)
    mean_token      its mean token E[e_k] stays, weighted by the gate, token by token

Shapes: I images of a batch, N tokens, D width, K experts.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

import torch

from tove_lvlm.checkpoints import LoadedCheckpoint, open_checkpoint
from tove_lvlm.surgery.choose import KEEP, Rule, choose
from tove_lvlm.surgery.mean_terms import measure_mean_terms
from tove_lvlm.surgery.probe import EncodedBatch, Probe
from tove_lvlm.surgery.probe_data import ProbeData, read_probe_data
from tove_lvlm.surgery.signals import measure_signals, total

RENORMALISED, MEAN_TERM, MEAN_TOKEN = "overall", "mean_term", "mean_token"
WAYS = (RENORMALISED, MEAN_TERM, MEAN_TOKEN)


class MeanTokenProbe(Probe):
    """A probe that puts an expert's mean token in its place when it is away.

    Args:
        loaded: A model with a gated tower.
        data: What to measure on.
        means: Expert -> (D,), from `mean_tokens`.
    """

    def __init__(self, loaded: LoadedCheckpoint, data: ProbeData, means: Mapping[str, torch.Tensor]):
        super().__init__(loaded, data)
        self.means = means

    def _visual_tokens(self, encoded: EncodedBatch, names: Collection[str]) -> torch.Tensor:
        fusion = self.tower.tove_fusion
        full = fusion(encoded.t_clip_IND, encoded.grids, torch.ones(len(encoded.t_clip_IND)))
        t_clip_IND = encoded.t_clip_IND
        away = {name: mean.to(t_clip_IND.dtype) for name, mean in self.means.items() if name not in names}
        tokens = {name: mean_D.expand_as(t_clip_IND) for name, mean_D in away.items()}
        tokens = fusion._weighed(t_clip_IND, tokens, full.gate_BNK)
        terms = fusion.terms(t_clip_IND, encoded.grids, full.gate_BNK)
        delta_IND = total({name: tokens.get(name, term_IND) for name, term_IND in terms.items()}, t_clip_IND)
        return self._language.visual_tokens(t_clip_IND + delta_IND.to(t_clip_IND.dtype))


@torch.no_grad()
def mean_tokens(probe: Probe) -> dict[str, torch.Tensor]:
    """E[e_k] of each attached expert, before its unit, over all tokens of a probe's images; (D,) each."""
    sums: dict[str, torch.Tensor] = {}
    num_tokens = 0
    for batch in probe.encode(range(probe.num_batches)):
        for name, token_IND in probe.tower.tove_fusion._transferred(batch.grids).items():
            sums[name] = sums.get(name, 0) + token_IND.double().sum((0, 1))
        num_tokens += batch.t_clip_IND[..., 0].numel()
    return {name: (sum_D / num_tokens).float() for name, sum_D in sums.items()}


def detachment(model: Path, world: Path) -> dict:
    """What detaching does to a trained model, chosen on scenes that nothing else is measured on.

    Args:
        model: A trained ToVE model.
        world: Folder with `probe/` (to choose on) and `heldout/` (to measure on).

    Returns:
        `order` of removal; for each of `WAYS` the held-out accuracy with all experts and after each removal; `single`:
        the same with only that expert away; `loss_change`, rise of the loss on the probing scenes with only that
        expert away; `signals`: expert -> cheap signals on the probing scenes.
    """
    loaded = open_checkpoint(model)
    names = tuple(loaded.tower.attached_names)
    held, probe_data = (read_probe_data(world / split / "questions.jsonl") for split in ("heldout", "probe"))
    probe = Probe(loaded, probe_data)
    order = list(choose(names, probe.quality, Rule(name=KEEP, limit=0)).removed)
    ladder = [tuple(name for name in names if name not in order[:gone]) for gone in range(len(names) + 1)]
    singles = [tuple(name for name in names if name != gone) for gone in names]
    measured = [quality.score for quality in Probe(loaded, held).quality([*ladder, *singles])]
    found = {
        "order": order,
        RENORMALISED: measured[: len(ladder)],
        "single": dict(zip(names, measured[len(ladder) :], strict=True)),
    }
    with_terms = Probe(loaded, held, mean_terms=measure_mean_terms(probe))
    for way, measuring in ((MEAN_TERM, with_terms), (MEAN_TOKEN, MeanTokenProbe(loaded, held, mean_tokens(probe)))):
        found[way] = [quality.score for quality in measuring.quality(ladder)]
    full, *without = probe.quality([names, *singles])
    found["loss_change"] = {name: gone.loss - full.loss for name, gone in zip(names, without, strict=True)}
    found["signals"] = {name: asdict(of) for name, of in measure_signals(probe).items()}
    return found


def agreement(found: Mapping[str, Mapping]) -> dict[str, dict[str, float]]:
    """How well each signal orders the experts as leave-one-out does: Spearman's rank correlation, mean over the runs.

    Args:
        found: Name of a run -> what `detachment` gave.

    Returns:
        Signal -> `loss`: against the rise of the loss on the same scenes; `score`: against the points lost on the
        held-out scenes; `least`: share of runs where the signal's least expert is the one whose going raises the loss
        least. `loss_change` is among the signals.
    """
    runs = [run for run in found.values() if "signals" in run]
    if not runs:
        return {}
    kinds = [*next(iter(runs[0]["signals"].values())), "loss_change"]
    rows: dict[str, dict[str, float]] = {}
    for kind in kinds:
        by_run = []
        for run in runs:
            names = list(run["signals"])
            signal = [run["loss_change"][n] if kind == "loss_change" else run["signals"][n][kind] for n in names]
            loss = [run["loss_change"][n] for n in names]
            lost = [run[RENORMALISED][0] - run["single"][n] for n in names]
            least = signal.index(min(signal)) == loss.index(min(loss))
            by_run.append((rank_correlation(signal, loss), rank_correlation(signal, lost), float(least)))
        rows[kind] = {
            name: round(fmean(values), 3)
            for name, values in zip(("loss", "score", "least"), zip(*by_run, strict=True), strict=True)
        }
    return rows


def rank_correlation(ones: Sequence[float], others: Sequence[float]) -> float:
    """Spearman's: the correlation of the ranks, equals sharing theirs; 0 where one side is all equal."""
    first, second = (torch.tensor(_ranks(values), dtype=torch.float64) for values in (ones, others))
    first, second = first - first.mean(), second - second.mean()
    length = float(first.norm() * second.norm())
    return float(first @ second) / length if length else 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) - 1) / 2 for value in values
    ]
