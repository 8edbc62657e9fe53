"""What is done to a trained ToVE of projects/real_small: experts taken out, experts merged into the base."""

import json
from pathlib import Path
from typing import Any

import torch

from tove_lvlm.checkpoints import LoadedCheckpoint
from tove_lvlm.storage import save_json
from tove_lvlm.surgery.choose import KEEP, Rule, choose
from tove_lvlm.surgery.mean_terms import measure_mean_terms
from tove_lvlm.surgery.probe import Probe
from tove_lvlm.surgery.probe_data import read_probe_data

from .real_small import EXPERTS, ask, open_cached, run_logged

KEPT = 3
"""Experts that stay when the least useful are detached."""
MADE = {
    "detached": f"ToVE, {len(EXPERTS) - KEPT} of {len(EXPERTS)} experts detached",
    "merged": "ToVE merged into the base",
}
"""What is made of the row `tove`: id -> label."""

PROBED = 96
"""Questions, of those that were learned from, by which it is chosen who goes."""


def evaluate_detached(model: Path, root: Path, folder: Path) -> dict[str, Any]:
    """Held-out accuracies without the least useful experts, and who they are.

    Args:
        model: A trained ToVE model.
        root: Folder with `data` and `expert_cache`.
        folder: Where the questions to choose by are written.
    """
    with open_cached(model, root) as loaded:
        removed = detach_least_useful(loaded, KEPT, root, folder)
        return {**ask(loaded, root), "detached": removed}


@torch.no_grad()
def detach_least_useful(loaded: LoadedCheckpoint, keep: int, root: Path, folder: Path) -> list[str]:
    """Detach as `tove detach --keep` does: leave-one-out by the loss, mean terms in their place.

    Args:
        loaded: A trained ToVE model; it is changed.
        keep: Experts that stay.
        root: Folder with `data`.
        folder: Where the questions to choose by are written.

    Returns:
        Who went, the first first.
    """
    learned = json.loads((root / "data" / "train" / "finetune.json").read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    save_json(folder / "probe.json", learned[:: max(1, len(learned) // PROBED)][:PROBED])
    probe = Probe(loaded, read_probe_data(folder / "probe.json", root / "data" / "train" / "images"))
    tower = loaded.require_tower()
    probe.mean_terms = measure_mean_terms(probe)
    removed = list(choose(tuple(tower.attached_names), probe.quality, Rule(name=KEEP, limit=keep)).removed)
    tower.detach(*removed, mean_terms={name: probe.mean_terms[name] for name in removed})
    return removed


def merge(model: Path, output: Path, seed: int, root: Path, steps: int | None) -> dict[str, Any]:
    """Merge the experts into the base, which learns from the training pictures alone.

    Args:
        model: A trained ToVE model.
        output: Where the merged model goes (`lvlm`).
        seed: Of the order of pictures.
        root: Folder with `data` and `expert_cache`.
        steps: Optimizer steps; none takes the YAML's.

    Returns:
        First and last `gap`, the share of the distance from the base's tokens to the tower's that is left.
    """
    options = [
        f"model.checkpoint={model}",
        f"data.images=[{root / 'data' / 'train' / 'images'}]",
        f"train.seed={seed}",
        f"train.expert_cache={root / 'expert_cache'}",
    ]
    lines = run_logged("merge", options, output, steps)
    return {"first_gap": lines[0]["gap"], "last_gap": lines[-1]["gap"], "steps": lines[-1]["step"]}
