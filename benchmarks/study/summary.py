"""From the jobs' results to one JSON, a table and a page of Markdown."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tove_lvlm.world.language import FAMILIES

from .plan import row_folder
from .pool import read_result
from .rows import FRACTIONS, Row

# Results that are no rows of their own training: id -> (label, row whose folder holds it, file).
DERIVED = {
    "half": ("ToVE, least useful half detached", "tove", "half.json"),
    "lite": ("ToVE-lite (merged CLIP), not re-tuned", "tove", "lite.json"),
    "lite_tuned": ("ToVE-lite, projector and LoRA re-tuned", "tove", "lite_tuned.json"),
    "clip_tuned": ("CLIP-only, the same steps more", "clip", "tuned.json"),
}


def collect(output: Path, rows: Sequence[Row], seeds: Sequence[int], chance: Mapping, meta: Mapping) -> dict:
    """Every figure of every seed.

    Args:
        output: The study's folder.
        rows: What was trained.
        seeds: With which seeds.
        chance: What the questions alone are worth (`eval.families.chance`).
        meta: Command, commit, hardware, time.
    """
    collected: dict[str, dict] = {}
    for row in rows:
        if row.group != "data":
            collected[row.id] = _row(row.label, row.group, output, seeds, row.id, "score.json")
    for row_id, (label, parent, name) in DERIVED.items():
        collected[row_id] = _row(label, "main", output, seeds, parent, name)
    curve = {tower: {} for tower in ("clip", "tove")}
    for tower, points in curve.items():
        for fraction in (*FRACTIONS, "1"):
            row_id = tower if fraction == "1" else f"{tower}_{fraction}"
            scores = _seeds(output, seeds, row_id, "score.json")
            if scores:
                points[fraction] = {seed: score["overall"] for seed, score in scores.items()}
    ladders = {row_id: _seeds(output, seeds, row_id, "ladder.json") for row_id in ("tove", "no_dropout")}
    return {
        "rows": {row_id: row for row_id, row in collected.items() if row["seeds"]},
        "chance": {"overall": chance["overall"]["accuracy"], "families": chance["families"]},
        "data_curve": curve,
        "detach": {row_id: ladder for row_id, ladder in ladders.items() if ladder},
        "meta": dict(meta),
    }


def _row(label: str, group: str, output: Path, seeds: Sequence[int], row_id: str, name: str) -> dict:
    return {"label": label, "group": group, "seeds": _seeds(output, seeds, row_id, name)}


def _seeds(output: Path, seeds: Sequence[int], row_id: str, name: str) -> dict[str, dict]:
    paths = {str(seed): row_folder(output, seed, row_id) / name for seed in seeds}
    return {seed: read_result(path) for seed, path in paths.items() if path.is_file()}


def mean_spread(values: Sequence[float]) -> str:
    """Mean and half the distance from lowest to highest, in percent: `91.9 ±0.6`."""
    mean = 100 * sum(values) / len(values)
    return f"{mean:.1f} ±{50 * (max(values) - min(values)):.1f}" if len(values) > 1 else f"{mean:.1f}"


def markdown(results: Mapping) -> str:
    """The tables as Markdown."""
    families = [name for name in FAMILIES if name in results["chance"]["families"]]
    seeds = sorted({seed for row in results["rows"].values() for seed in row["seeds"]})
    lines = [
        f"Held-out accuracy in percent, mean over seeds {', '.join(seeds)} (± half the range).",
        "",
        f"| row | overall | {' | '.join(families)} |",
        "|---|---|" + "---|" * len(families),
    ]
    chance = results["chance"]
    lines.append(_line("chance", [f"{100 * chance['overall']:.1f}"] + [_percent(chance, name) for name in families]))
    for row in results["rows"].values():
        by_seed = list(row["seeds"].values())
        cells = [mean_spread([seed["overall"] for seed in by_seed])]
        for name in families:
            cells.append(f"{100 * sum(s['families'][name]['accuracy'] for s in by_seed) / len(by_seed):.1f}")
        lines.append(_line(row["label"], cells))
    lines += ["", *_curve(results["data_curve"]), "", *_ladders(results["detach"])]
    return "\n".join(lines) + "\n"


def _percent(part: Mapping, family: str) -> str:
    return f"{100 * part['families'][family]['accuracy']:.1f}"


def _line(label: str, cells: Sequence[str]) -> str:
    return f"| {label} | {' | '.join(cells)} |"


def _curve(curve: Mapping) -> list[str]:
    fractions = [name for name in (*FRACTIONS, "1") if any(name in points for points in curve.values())]
    lines = [f"| share of the training scenes | {' | '.join(fractions)} |", "|---|" + "---|" * len(fractions)]
    for tower, label in (("clip", "CLIP-only"), ("tove", "ToVE")):
        points = curve[tower]
        lines.append(_line(label, [mean_spread(list(points[f].values())) if f in points else "" for f in fractions]))
    return lines


def _ladders(ladders: Mapping) -> list[str]:
    lines = ["| expert dropout | seed | order of removal | with all | after each removal |", "|---|---|---|---|---|"]
    for row_id, label in (("tove", "on"), ("no_dropout", "off")):
        for seed, ladder in ladders.get(row_id, {}).items():
            first, *after = [f"{100 * value:.1f}" for value in ladder["overall"]]
            lines.append(_line(label, [seed, ", ".join(ladder["order"]), first, " / ".join(after)]))
    return lines
