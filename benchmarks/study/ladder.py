"""The gate ladder: what each kind of gate makes of two depth experts that are each wrong about half of the objects.

    within_picture      about a kind of object: tokens of one picture need different experts
    between_pictures    about a kind of picture: one choice for all of its tokens would do

Both experts go through one transfer (`fusion.transfer: shared`), so that nothing but the gate tells them apart; the
rows `*_shared_out` give each a first layer of its own.
"""

import functools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import training
from .plan import training_jobs
from .pool import Job
from .routing import mass_right
from .rows import Row

DOMAINS = {"within_picture": ("warm", "cool"), "between_pictures": ("bright", "dark")}
WRONG = ("unrelated", "inverted")
GATES = ("token", "constant", "image", "shuffled", "token_and_expert")
WHOLE = "whole"
DEPTH_FAMILIES = ("nearfar", "rel_nearer")
OPTIONS = ("train.bf16=false",)
"""The same arithmetic on any processor."""


def domain_expert(domain: str, wrong: str) -> dict:
    """A tower YAML's entry of an expert that is right in a domain."""
    entry = {"family": "domain_depth", "output": "map", "channels": 1, "pretrained": "shipped:miniature/domains"}
    return {**entry, "domain": domain, "wrong": wrong}


def register_experts() -> None:
    """Make the ladder's experts known to `training.write_tower`."""
    from . import domain_depth  # noqa: F401  registers its family

    training.EXTRA_EXPERTS[WHOLE] = domain_expert("all", WRONG[0])
    for domains in DOMAINS.values():
        for domain in domains:
            for wrong in WRONG:
                training.EXTRA_EXPERTS[f"{domain}_{wrong}"] = domain_expert(domain, wrong)


def ladder_rows() -> list[Row]:
    """Every row, those that the question is about first."""
    rows = [_row("within_picture", wrong, gate) for gate in GATES[:2] for wrong in WRONG]
    rows.append(Row(id=WHOLE, label="one whole expert", group="ladder", experts=(WHOLE,), options=OPTIONS))
    rows += [_row("within_picture", "unrelated", f"{gate}_shared_out") for gate in GATES[:2]]
    rows += [_row("within_picture", wrong, gate) for gate in (*GATES[2:], "concat") for wrong in WRONG]
    rows += [_row("between_pictures", wrong, gate) for gate in (*GATES, "concat") for wrong in WRONG]
    return rows


def quick_rows() -> list[Row]:
    """Enough to see that the ladder runs."""
    return ladder_rows()[:1]


def _row(where: str, wrong: str, gate: str) -> Row:
    fusion = {"gate": gate.removesuffix("_shared_out"), "transfer": "shared"}
    if gate == "concat":
        fusion = {"kind": "concat"}
    elif gate.endswith("_shared_out"):
        fusion["transfer"] = "shared_out"
    experts = tuple(f"{domain}_{wrong}" for domain in DOMAINS[where])
    row_id = f"{where}/{wrong}/{gate}"
    return Row(id=row_id, label=gate, group="ladder", experts=experts, fusion=fusion, options=OPTIONS)


def ladder_jobs(rows: Sequence[Row], seed: int, world: Path, output: Path, steps: Mapping[str, int]) -> list[Job]:
    """Both stages and the score of each row; the score has the gate's figures too."""
    from tove_lvlm.provenance import commit, hardware

    made_by = {"commit": commit(), "hardware": hardware()}
    jobs = []
    for row in rows:
        *stages, scoring = training_jobs([row], seed, world, output, steps)
        model = scoring.result.parent / "model"
        work = functools.partial(score, row, model, world, made_by)
        jobs += [*stages, Job(result=scoring.result, work=work, needs=scoring.needs)]
    return jobs


def score(row: Row, model: Path, world: Path, made_by: Mapping[str, str]) -> dict:
    """Accuracy on depth questions and on all, and the gate's mass on the expert that is right; shares of 1."""
    from tove_lvlm.inference.chat import Chat
    from tove_lvlm.storage import load_json
    from tove_lvlm.world.dataset import scene_seeds
    from tove_lvlm.world.scene import sample

    evaluated = training.evaluate(model, world)
    families = [evaluated["families"][name] for name in DEPTH_FAMILIES if name in evaluated["families"]]
    num = sum(family["n"] for family in families)
    found = {
        "depth": sum(family["accuracy"] * family["n"] for family in families) / num,
        "overall": evaluated["overall"],
        "families": {name: family["accuracy"] for name, family in evaluated["families"].items()},
        **made_by,
    }
    if row.id == WHOLE or row.fusion.get("kind") == "concat":
        return found
    held = load_json(world / "heldout" / "dataset.json")
    scenes = sample(scene_seeds("heldout", held["num_scenes"], held["seed"]))
    images = [world / "heldout" / "images" / f"{index:06d}.png" for index in range(len(scenes))]
    experts = dict(zip(DOMAINS[row.id.split("/")[0]], row.experts, strict=True))
    return found | mass_right(Chat.load(model, device="cpu"), scenes, images, experts)


def summarise(runs: Mapping[str, Mapping[str, dict]]) -> dict:
    """Means over the seeds in percent: where -> kind of wrong -> gate -> depth, overall, mass_right, spread, seeds.

    `spread` is the standard deviation of the gate's mass over tokens, `depth_range` the lowest and highest seed's.
    """
    summary: dict = {where: {wrong: {} for wrong in WRONG} for where in DOMAINS}
    for row_id, by_seed in runs.items():
        cells = [row_id.split("/")] if row_id != WHOLE else [[*place, WHOLE] for place in _places()]
        for where, wrong, gate in cells:
            summary[where][wrong][gate] = _means(list(by_seed.values())) | {"seeds": sorted(map(int, by_seed))}
    return summary


def _places() -> list[tuple[str, str]]:
    return [(where, wrong) for where in DOMAINS for wrong in WRONG]


def _means(found: Sequence[Mapping]) -> dict:
    means: dict = {}
    for key in ("depth", "overall", "mass_right", "spread"):
        values = [one[key] for one in found if key in one]
        if values:
            means[key] = round(100 * statistics.fmean(values), 1)
    depths = [round(100 * one["depth"], 1) for one in found]
    return means | {"depth_range": [min(depths), max(depths)]}


def table(summary: Mapping) -> str:
    """The summary as Markdown."""
    lines = [
        "| experts differ | wrong answers | gate | depth questions | lowest to highest | overall | mass on the right |",
        "|---|---|---|---|---|---|---|",
    ]
    for where in DOMAINS:
        for wrong in WRONG:
            for gate, cell in summary[where][wrong].items():
                low, high = cell["depth_range"]
                mass = f"{cell['mass_right']:.1f}" if "mass_right" in cell else "-"
                place = f"{where.replace('_', ' ')} | {wrong} | {gate}"
                depth = f"{cell['depth']:.1f} | {low:.1f} to {high:.1f}"
                lines.append(f"| {place} | {depth} | {cell['overall']:.1f} | {mass} |")
    return "\n".join(lines) + "\n"
