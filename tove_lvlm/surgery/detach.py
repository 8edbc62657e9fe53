"""Take experts out of a trained checkpoint without retraining, and measure it before and after. Paper's second half.

The input is only read. What is written is opened and measured in its temporary place, and takes its name when all of
it is done: a run that fails leaves nothing.
"""

import dataclasses
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .. import storage
from ..checkpoints import LoadedCheckpoint, open_checkpoint
from ..checkpoints.experts import no_experts
from ..checkpoints.forget import GATE_OUT
from ..checkpoints.write_experts import mean_terms_file
from ..config import UserError
from ..registry import nearest
from ..tower.cost import measure_cost
from ..tower.modeling import ToVEVisionModel
from .choose import BUDGET_MS, Attached, Choice, Rule, choose
from .compare import file_bytes, latencies, share_equal, tower_ms, weight_bytes
from .mean_terms import measure_mean_terms
from .probe import Probe, Quality
from .probe_data import ProbeData

REPORT_FILE = "detach.json"
Progress = Callable[[str, int, int], None]
"""Called with (what is being done, batches done, all batches)."""

UNITS = {
    "loss": "nats per answer token",
    "score": "share of answers right",
    "gain": "rise of the loss when the expert goes, nats per answer token",
    "ms": "milliseconds per image",
    "tower_ms": "milliseconds per image, vision tower",
    "prefill_ms": "milliseconds per image, prompt with image up to the first token",
    "memory_bytes": "weights in memory",
    "file_bytes": "files of the checkpoint",
    "change": "after / before - 1; of the score after - before",
}


def detach(
    folder: str | Path,
    output: str | Path,
    experts: Sequence[str] = (),
    rule: Rule | None = None,
    data: ProbeData | None = None,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    seconds: float = 4.0,
    progress: Progress | None = None,
    forget: bool = False,
    renormalise: bool = False,
) -> dict[str, Any]:
    """Write a checkpoint without some of its experts, of the same kind, with REPORT_FILE beside it.

    With data to measure on, the mean term of each stands in its place, as long as another expert is left.

    Args:
        folder: Any checkpoint with a ToVE tower; not changed.
        output: New folder.
        experts: Which go; or else `rule`.
        rule: How to choose them.
        data: To choose by and to measure quality on; without it (`experts` only) quality is not reported.
        batch_size: Images, and conversations, that run together in the measuring of quality.
        device: Where to measure; none takes CUDA when there is one.
        seconds: How long to measure the speed of the tower, and then that of the whole prompt.
        progress: Told after each batch.
        forget: Leave out what was trained for these experts too (their transfers, their rows of the gate): they cannot
            be attached again. For a saved tower or a merged model, whose adapter is then not written. Nothing stands in
            their place.
        renormalise: Let the other experts share what the gate gave these, also where there are data.

    Returns:
        The report, plain values; see UNITS.

    Raises:
        UserError: Nothing to go by or nothing to remove, an unknown expert, a plain CLIP, `output` in the way.
        WeightsError: Weights are missing or truncated.
        DataError: Too much of the data is broken.
    """
    if bool(experts) == (rule is not None):
        raise UserError("give either the experts to detach or one rule to choose them by")
    if rule is not None and data is None:
        raise UserError(f"{rule.option} needs --data FILE to measure the experts on")
    with storage.new_folder(output, folder) as writing:
        before = open_checkpoint(folder)
        if before.tower is None:
            raise no_experts(before.folder)
        names = before.tower.attached_names
        _check(before.tower, experts, before.folder)
        before.model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        probe = Probe(before, data, batch_size) if data is not None else None
        is_gated = before.tower.config.fusion_settings.kind == "gated"
        if probe is not None and is_gated and not (forget or renormalise):
            probe.mean_terms = measure_mean_terms(probe, _labelled(progress, "mean terms"))
        choice = _choose(before, probe, rule, progress) if rule is not None and probe is not None else None
        removed = list(choice.removed) if choice else list(dict.fromkeys(experts))
        detached = [name for name in before.tower.expert_names if name not in names or name in removed]
        means = {name: probe.mean_terms[name] for name in removed if probe is not None and name in probe.mean_terms}
        if len(detached) == len(before.tower.expert_names):
            means = {}  # without any expert the tower is its base, bit for bit
        if forget:
            written = before.checkpoint.without_experts(writing, detached)
        else:
            with mean_terms_file(means, before.tower, writing) as files:
                written = before.checkpoint.with_experts(writing, detached, mean_terms=files)

        after = open_checkpoint(writing)
        own = GATE_OUT if forget else tuple(f"mean_terms.{name}" for name in means)
        share_equal(before.model, after.model, changed=own)
        after.model.to(before.device)
        sides = {"before": before, "after": after}
        measured = _measure(sides, data, batch_size, seconds, progress)
        report = {
            "from": str(before.folder),
            "kind": before.kind,
            "written": written,
            "by": {rule.name: rule.limit} if rule else {"experts": removed},
            "removed": removed,
            "mean_terms": after.require_tower().config.mean_terms,
            "attached": after.require_tower().attached_names,
            **measured,
            "change": _change(**measured),
            "notes": _notes(after, rule, measured["after"]),
            "history": [dataclasses.asdict(step) for step in choice.steps] if choice else [],
            "data": _checkpoint_info(data, probe),
            "machine": _machine(before),
            "units": UNITS,
        }
        storage.save_json(writing / REPORT_FILE, report)
        return storage.load_json(writing / REPORT_FILE)


def _check(tower: ToVEVisionModel, experts: Sequence[str], folder: Path) -> None:
    if not tower.attached_names:
        raise UserError(f"`{folder}` has no expert attached (it is CLIP already); there is nothing to detach")
    for name in experts:
        if name not in tower.expert_names:
            raise UserError(f"the model has no expert `{name}`; {nearest(name, tower.expert_names)}")
        if name not in tower.attached_names:
            raise UserError(f"`{name}` is detached already; attached: {', '.join(tower.attached_names)}")


def _choose(loaded: LoadedCheckpoint, probe: Probe, rule: Rule, progress: Progress | None) -> Choice:
    if not probe.has_quality:
        raise UserError(
            f"`{loaded.folder}` on `{probe.data.source}` gives no answers to judge by (a tower or images alone): "
            "name the experts with --experts"
        )
    tower = loaded.require_tower()
    costs = measure_cost(tower)
    rounds = 0

    def quality(sets: Sequence[Attached]) -> list[Quality]:
        nonlocal rounds
        rounds += 1
        return probe.quality(sets, _labelled(progress, f"round {rounds}: {len(sets)} sets of experts"))

    choice = choose(
        tower.attached_names,
        quality,
        rule,
        cost={name: costs[name].ms for name in tower.attached_names},
        tower_ms=lambda names: tower_ms(tower, names),
    )
    if not choice.removed:
        start, least = choice.steps[0], min(choice.steps[0].candidates, key=lambda candidate: candidate.loss)
        raise UserError(
            f"nothing to remove by {rule.option} {rule.limit:g}: without `{least.expert}`, the least useful, the loss "
            f"rises by {least.gain:.4f} nats per answer token and {_percent(least.score)} of the answers are right "
            f"instead of {_percent(start.score)}"
        )
    return choice


def _percent(share: float | None) -> str:
    return "no share" if share is None else f"{100 * share:.2f} %"


def _measure(
    sides: dict[str, LoadedCheckpoint],
    data: ProbeData | None,
    batch_size: int,
    seconds: float,
    progress: Progress | None,
) -> dict[str, dict[str, Any]]:
    measured: dict[str, dict[str, Any]] = {name: {**times} for name, times in latencies(sides, seconds).items()}
    for name, loaded in sides.items():
        quality: Quality | None = None
        probe = Probe(loaded, data, batch_size) if data is not None else None
        if probe is not None and probe.has_quality:
            (quality,) = probe.quality([loaded.require_tower().attached_names], _labelled(progress, name))
        measured[name] |= {
            "loss": None if quality is None else quality.loss,
            "score": None if quality is None else quality.score,
            "num_answers": None if quality is None else quality.num_answers,
            "memory_bytes": weight_bytes(loaded.model),
            "file_bytes": file_bytes(loaded.checkpoint),
        }
    return measured


def _change(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, float]:
    """Of what was measured before: loss and score are None where there was nothing to answer."""
    change: dict[str, float] = {
        key: after[key] / before[key] - 1 for key in before if key not in ("score", "num_answers") and before[key]
    }
    return change if before["score"] is None else change | {"score": after["score"] - before["score"]}


def _notes(after: LoadedCheckpoint, rule: Rule | None, measured: dict[str, Any]) -> list[str]:
    notes = []
    if not after.require_tower().attached_names:
        notes.append("every expert is detached: the tower is CLIP, bit for bit, and runs nothing else")
    if not after.checkpoint.holds_experts:
        notes.append(
            "this checkpoint refers to its experts and holds none, so its files keep their size; it reads less"
        )
    if after.require_tower().config.mean_terms and after.require_tower().attached_names:
        notes.append(
            "the mean term of what is gone stands in its place, for every token; `--renormalise` lets the other "
            "experts share its part of the gate instead"
        )
    if rule is not None and rule.name == BUDGET_MS and measured["tower_ms"] > rule.limit:
        notes.append(
            f"measured at the end, the tower takes {measured['tower_ms']:.3g} ms per image, above the budget of "
            f"{rule.limit:g}: it lies within this machine's noise"
        )
    return notes


def _checkpoint_info(data: ProbeData | None, probe: Probe | None) -> dict[str, Any] | None:
    if data is None or probe is None:
        return None
    return {"source": str(data.source), "num_images": len(data.images), "left_out": probe.broken}


def _machine(loaded: LoadedCheckpoint) -> dict[str, Any]:
    device = loaded.device
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "dtype": str(next(loaded.model.parameters()).dtype).removeprefix("torch."),
        "torch": torch.__version__,
    }


def _labelled(progress: Progress | None, label: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(label, done, total)
