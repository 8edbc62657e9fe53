"""From the jobs' results to one JSON, and back into a folder from which the study goes on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tove_lvlm.storage import save_json

from . import encoders
from .choices import VALIDATION, Trial, budget_trials, choice_file
from .comparison import difference
from .detachment import agreement
from .plan import row_folder
from .pool import read_result
from .rows import BASE, CAPTION, CLIP_SCENES, TOVE_SCENES, VICUNA, Row, data_id

# Results that are no rows of their own training: id -> (label, row whose folder holds it, file).
DERIVED = {
    "half": ("ToVE, least useful half detached", "tove", "half.json"),
    "lite": ("ToVE-lite (merged CLIP), not re-tuned", "tove", "lite.json"),
    "lite_tuned": ("ToVE-lite, projector and LoRA re-tuned", "tove", "lite_tuned.json"),
    "clip_tuned": ("CLIP-only, the same steps more", "clip", "tuned.json"),
}
LADDERS = ("tove", "no_dropout", "separate", "gate_constant")
"""Rows whose experts are taken out one after another."""
AXIS = {"clip": tuple(CLIP_SCENES), "tove": tuple(TOVE_SCENES)}


def result_files(output: Path, rows: Sequence[Row], seeds: Sequence[int]) -> dict[tuple[str, str], Path]:
    """(row, seed) -> where its score lies, for rows and for what is derived from them."""
    places = {row.id: (row.id, "score.json") for row in rows}
    places |= {row_id: (parent, name) for row_id, (_, parent, name) in DERIVED.items()}
    return {
        (row_id, str(seed)): row_folder(output, seed, parent) / name
        for row_id, (parent, name) in places.items()
        for seed in seeds
    }


def ladder_files(output: Path, seeds: Sequence[int]) -> dict[tuple[str, str], Path]:
    """(row, seed) -> where the scores after each detachment lie."""
    return {(row, str(seed)): row_folder(output, seed, row) / "ladder.json" for row in LADDERS for seed in seeds}


def known_seeds(results: Mapping, seeds: Sequence[int]) -> list[int]:
    """The seeds asked for and those that an earlier run's results hold, which stay in what is written.

    Args:
        results: What `collect` gave; may be empty.
        seeds: Asked for.
    """
    found = [entry["seeds"] for entry in results.get("rows", {}).values()]
    return sorted(
        {*seeds, *(int(seed) for by_seed in [*found, *results.get("detach", {}).values()] for seed in by_seed)}
    )


def collect(
    output: Path,
    rows: Sequence[Row],
    curves: Sequence[Row],
    trials: Sequence[Trial],
    seeds: Sequence[int],
    chance: Mapping,
) -> dict:
    """Every figure of every seed that is there.

    Args:
        output: The study's folder.
        rows: What is trained.
        curves: Rows that were trained with every budget.
        trials: What was tried on validation scenes.
        seeds: With which seeds.
        chance: What the questions alone are worth (`eval.families.chance`).
    """
    named = {row.id: (row.label, row.group) for row in rows}
    named |= {row_id: (label, "main") for row_id, (label, _, _) in DERIVED.items()}
    found: dict[str, dict] = {}
    for (row_id, seed), path in result_files(output, rows, seeds).items():
        if path.is_file():
            label, group = named[row_id]
            entry = found.setdefault(row_id, {"label": label, "group": group, "seeds": {}})
            entry["seeds"][seed] = read_result(path)
    ladders: dict[str, dict] = {}
    for (row_id, seed), path in ladder_files(output, seeds).items():
        if path.is_file():
            ladders.setdefault(row_id, {})[seed] = read_result(path)
    against = {row.id: row.against for row in rows}
    for row_id, entry in found.items():
        other = against.get(row_id, "tove")
        if row_id != other:
            entry["against_tove"] = difference(entry["seeds"], found.get(other, {"seeds": {}})["seeds"])
    clip = encoders.record(output, encoders.RICH_CLIP)
    return ({"rich_clip": read_result(clip)} if clip.is_file() else {}) | {
        "rows": {row_id: found[row_id] for row_id in named if row_id in found},
        "chance": {"overall": chance["overall"]["accuracy"], "families": chance["families"]},
        "budgets": {row.id: _budget_curve(row, output) for row in curves},
        "choices": {row.id: read_result(path) for row in rows if (path := choice_file(output, row.id)).is_file()},
        "trials": {trial.id: score for trial in trials if (score := _validation(trial, output))},
        "detach": ladders,
        "signals": agreement({f"{row}/{seed}": run for row, runs in ladders.items() for seed, run in runs.items()}),
    }


def restore(results: Mapping, output: Path, rows: Sequence[Row], trials: Sequence[Trial], seeds: Sequence[int]) -> None:
    """Put the results of an earlier run, which may have been on another machine, where this one's would lie.

    Args:
        results: What `collect` gave; an empty one restores nothing.
        output: The study's folder; what is there stays.
        rows: As for `collect`.
        trials: The same.
        seeds: The same.
    """
    for row in rows:
        _put(choice_file(output, row.id), results.get("choices", {}).get(row.id))
    for trial in trials:
        _put(trial.folder(output) / f"{VALIDATION}.json", results.get("trials", {}).get(trial.id))
    for (row_id, seed), path in result_files(output, rows, seeds).items():
        _put(path, results.get("rows", {}).get(row_id, {"seeds": {}})["seeds"].get(seed))
    for (row_id, seed), path in ladder_files(output, seeds).items():
        _put(path, results.get("detach", {}).get(row_id, {}).get(seed))


def data_axis(results: Mapping, steps: Mapping[str, int]) -> dict[str, dict]:
    """Score by number of training scenes, in percent: tower -> scenes -> overall, spread, steps, seeds.

    `spread` is the distance from the lowest seed to the highest, `steps` those of all stages. `captioner` is the base
    model's, the same with CIDEr (times 100); its `overall` is the share of objects named with color and shape.

    Args:
        results: What `collect` gave.
        steps: The study's steps, of which each row has a multiple.
    """
    axis: dict[str, dict] = _axis(results, steps, "", VICUNA)
    captioner = _axis(results, steps, CAPTION, BASE)
    for tower, points in captioner.items():
        for scenes, point in points.items():
            found = [seed["cider"] for seed in _seeds(results, CAPTION + data_id(tower, int(scenes)))]
            point["cider"] = None if None in found else round(sum(found) / len(found), 1)
    return axis | {"captioner": captioner}


def _axis(results: Mapping, steps: Mapping[str, int], prefix: str, stages: Sequence[str]) -> dict[str, dict]:
    axis: dict[str, dict] = {tower: {} for tower in AXIS}
    for tower, numbers in AXIS.items():
        for scenes in numbers:
            row_id = prefix + data_id(tower, scenes)
            scores = [100 * seed["overall"] for seed in _seeds(results, row_id)]
            if scores:
                budget = results["choices"].get(row_id, {"budget": 1.0})["budget"]
                axis[tower][str(scenes)] = {
                    "overall": round(sum(scores) / len(scores), 2),
                    "spread": round(max(scores) - min(scores), 2),
                    "steps": sum(round(budget * steps[stage]) for stage in stages),
                    "seeds": len(scores),
                }
    return axis


def _seeds(results: Mapping, row_id: str) -> list[dict]:
    return list(results["rows"].get(row_id, {"seeds": {}})["seeds"].values())


def _budget_curve(row: Row, output: Path) -> dict[str, dict]:
    """Budget -> score on validation scenes."""
    curve = {f"{trial.budget:.3g}": _validation(trial, output) for trial in budget_trials(row)}
    return {budget: score for budget, score in curve.items() if score}


def _validation(trial: Trial, output: Path) -> dict:
    path = trial.folder(output) / f"{VALIDATION}.json"
    if not path.is_file():
        return {}
    score = read_result(path)
    return {name: score[name] for name in ("overall", "families", "commit", "hardware")}


def _put(path: Path, value: Mapping | None) -> None:
    if value and not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_json(path, dict(value))
