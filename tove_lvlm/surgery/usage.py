"""Which experts are used and matter: gate statistics, what is lost without each expert, and what each costs.

The figures stream: memory does not grow with the data. With several ranks each takes its share of the batches; a batch
is the same whatever the number of ranks, so the figures are too.

See docs/design.md, "Usage".
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from .. import dist
from ..checkpoints import LoadedCheckpoint
from ..config import UserError
from ..cost import eval_mode
from ..data.errors import DataError
from ..storage import fingerprint
from ..tower.cost import Cost, measure_cost
from ..tower.modeling import ToVEVisionModel
from .probe import Probe, Progress, Quality
from .probe_data import ProbeData
from .signals import add_signals, signals_of
from .usage_sums import State, Sums, add_gate, rank_batches

logger = logging.getLogger(__name__)

_FORMAT = 2
RANKED_BY = ("loss_change", "answer_norm")
"""By what experts are ranked: the loss without each, or the cheap signal that agrees best with it (docs/results.md,
"Who should be detached")."""
_NO_QUALITY = Quality(None, None, 0, 0)
_NO_COST = Cost(ms=0.0, gflops=0.0, parameters=0, memory_bytes=0)


def measure_usage(
    loaded: LoadedCheckpoint,
    data: ProbeData,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    num_workers: int = 0,
    estimate: bool = False,
    state_file: Path | None = None,
    save_every: int = 20,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure how a model uses its experts. Every rank calls it, with the same arguments.

    Args:
        loaded: What `open_checkpoint` gave.
        data: What to measure on; without answers, or without a language model, there is no loss and no score.
        batch_size: Images that run together, and conversations that do.
        device: Where to; None leaves the model where it is.
        num_workers: Processes that read images, for each rank.
        estimate: In place of a pass without each expert one pass forward and back, however many there are
            (`signals`): how much the loss rises without each, to first order.
        state_file: Where the sums are kept while it runs; what is there of the same checkpoint, data and settings is
            gone on with. The caller deletes it once the report is safe.
        save_every: Batches of each rank from one save to the next.
        progress: Told after each batch, on rank 0.

    Returns:
        `experts`: name -> `detached`, `gate_mass`, `first_share`, `relative_norm`, `loss_change` and `score_change`
        (without it minus with it; None where there is no quality or an estimate is asked for), `loss_estimate` and
        `answer_norm` (`Signals.first_order` and `answer_norm`; None without `estimate`), `ms`, `gflops`,
        `parameters`, `memory_bytes`;
        `clip`, `tove_fusion`, `tower`: cost; `quality` and `quality_clip` (all experts away): `loss` and `score`, or
        None; `ranked_by` (of `RANKED_BY`; None without answers) and `least_useful_first`, the attached experts in
        that order; `num_images`, `num_answers`, and what was left out. The same on every rank, but cost is None on all
        ranks but 0.

    Raises:
        DataError: Too many samples or images are broken.
        UserError: The model has no gate, a number is below 1, or there are no answers to estimate a loss of.
    """
    tower = _gated(loaded)
    for name, number in (("batch_size", batch_size), ("save_every", save_every)):
        if number < 1:
            raise UserError(f"{name} is {number}; expected at least 1")
    identity = _identity(loaded, data, batch_size, estimate) if dist.is_main() and state_file is not None else ""
    probe = Probe(loaded, data, batch_size=batch_size, device=device, num_workers=num_workers)
    if estimate and not probe.has_quality:
        raise UserError(f"an estimate is of the loss of answers: `{loaded.folder}` or {data.source} has none")
    sets = _sets(tower, estimate) if probe.has_quality else []
    state = State(identity=identity, sums=Sums.zeros(len(tower.expert_names), len(sets)), broken=dict(probe.broken))
    if state_file is not None:
        if dist.is_main() and state_file.is_file() and not state.load(state_file):
            logger.warning("%s is of another checkpoint, data or batch size: starting anew", state_file)
        state = dist.all_gather(state)[0]
    if dist.is_main() and progress is not None:
        progress(state.done, probe.num_batches)
    with eval_mode(loaded.model):
        while state.done < probe.num_batches:
            _advance(probe, tower, sets, estimate, state, save_every, progress)
            if state_file is not None and dist.is_main():
                state.save(state_file)
    if not state.sums["counts"][0]:
        raise DataError("not one image can be read", file=data.source)
    costs = measure_cost(tower, batch_size=min(batch_size, 8)) if dist.is_main() else {}
    dist.barrier()
    return _checkpoint_info(loaded, data, batch_size, state) | _figures(tower, sets, estimate, state.sums, costs)


def _advance(
    probe: Probe,
    tower: ToVEVisionModel,
    sets: list[frozenset[str]],
    estimate: bool,
    state: State,
    checkpoint_every: int,
    progress: Progress | None,
) -> None:
    """Each rank's next `checkpoint_every` batches, into `state`."""
    stop = min(state.done + checkpoint_every * dist.world_size(), probe.num_batches)
    part = Sums.zeros(len(tower.expert_names), len(sets))
    probe.broken.update(state.broken)
    for number, batch in enumerate(probe.encode(rank_batches(state.done, stop)), start=1):
        add_gate(part, tower, batch)
        part["quality"] += probe.score_sets(batch, sets)
        if estimate:
            add_signals(part, probe, batch)
        if progress is not None and dist.is_main():
            progress(min(state.done + number * dist.world_size(), stop), probe.num_batches)
    state.sums.add(part.reduced())
    for broken in dist.all_gather(probe.broken):
        state.broken.update(broken)
    probe.data.check_bad(state.broken)
    state.done = stop


def _gated(loaded: LoadedCheckpoint) -> ToVEVisionModel:
    tower = loaded.tower
    if tower is None:
        raise UserError(f"`{loaded.folder}` has a plain CLIP and no ToVE tower: there are no experts to measure")
    if not tower.expert_names:
        raise UserError(f"the tower in `{loaded.folder}` was built without experts: there is nothing to measure")
    if tower.config.fusion_settings.kind != "gated":
        kind = tower.config.fusion_settings.kind
        raise UserError(
            f"the tower in `{loaded.folder}` has no gate (fusion.kind is `{kind}`): nothing says who is used"
        )
    return tower


def _sets(tower: ToVEVisionModel, estimate: bool) -> list[frozenset[str]]:
    """All attached experts first, then each left out, then none; a set that comes twice is measured once."""
    all_experts = frozenset(tower.attached_names)
    without = [] if estimate else [all_experts - {name} for name in tower.attached_names]
    return list(dict.fromkeys([all_experts, *without, frozenset()]))


def _identity(loaded: LoadedCheckpoint, data: ProbeData, batch_size: int, estimate: bool) -> str:
    parts = {
        "format": _FORMAT,
        "weights": fingerprint(loaded.model.state_dict()),
        "config": cast(PreTrainedModel, loaded.model).config.to_json_string(),
        "image_aspect_ratio": loaded.image_aspect_ratio,
        "data": data.fingerprint(),
        "batch_size": batch_size,
        "estimate": estimate,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _checkpoint_info(loaded: LoadedCheckpoint, data: ProbeData, batch_size: int, state: State) -> dict[str, Any]:
    device = next(loaded.model.parameters()).device
    return {
        "checkpoint": str(loaded.folder),
        "kind": loaded.kind,
        "data": str(data.source),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "dtype": str(next(loaded.model.parameters()).dtype).removeprefix("torch."),
        "batch_size": batch_size,
        "num_images": int(state.sums["counts"][0]),
        "num_text_only": data.num_text_only,
        "num_several_images": data.num_several,
        "num_broken": len(state.broken),
        "broken": state.broken,
    }


def _figures(
    tower: ToVEVisionModel, sets: list[frozenset[str]], estimate: bool, sums: Sums, costs: Mapping[str, Cost]
) -> dict[str, Any]:
    num_tokens = max(1.0, float(sums["counts"][1]))
    quality = {names: Quality.of(sums_4) for names, sums_4 in zip(sets, sums["quality"], strict=True)}
    all_experts = frozenset(tower.attached_names)
    full_quality = quality.get(all_experts, _NO_QUALITY)
    experts = {}
    for k, name in enumerate(tower.expert_names):
        without = quality.get(all_experts - {name}, _NO_QUALITY if estimate else full_quality)
        signals = signals_of(sums, k) if estimate else None
        experts[name] = {
            "detached": name not in all_experts,
            "gate_mass": float(sums["mass"][k]) / num_tokens,
            "first_share": float(sums["first"][k]) / num_tokens,
            "relative_norm": float(sums["norm"][k]) / num_tokens,
            "answer_norm": signals and signals.answer_norm,
            "loss_estimate": signals and signals.first_order,
            "loss_change": _change(full_quality.loss, without.loss),
            "score_change": _change(full_quality.score, without.score),
            **dataclasses.asdict(costs.get(name, _NO_COST)),
        }
    whole_parts = {name: _cost_of(costs, name) for name in ("clip", "tove_fusion", "tower")}
    return {
        "num_answers": full_quality.num_answers,
        "num_answer_tokens": full_quality.num_tokens,
        "quality": _shown(full_quality),
        "quality_clip": _shown(quality.get(frozenset(), full_quality)),
        "experts": experts,
        **whole_parts,
        **_ranking(experts),
    }


def _ranking(experts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The attached experts, the least useful first, by the best measure that there is."""
    attached = {name: row for name, row in experts.items() if not row["detached"]}
    measured = next((by for by in RANKED_BY if all(row[by] is not None for row in attached.values())), None)
    ranking = [] if measured is None else sorted(attached, key=lambda name: float(attached[name][measured]))
    return {"ranked_by": measured, "least_useful_first": ranking}


def _change(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _shown(quality: Quality) -> dict[str, float | None] | None:
    return None if quality.loss is None else {"loss": quality.loss, "score": quality.score}


def _cost_of(costs: Mapping[str, Cost], name: str) -> dict[str, Any] | None:
    return dataclasses.asdict(costs[name]) if name in costs else None
