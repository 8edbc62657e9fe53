"""The study's page of Markdown."""

from collections.abc import Callable, Mapping, Sequence

from tove_lvlm.world.language import FAMILIES

from .detachment import WAYS


def mean_spread(values: Sequence[float]) -> str:
    """Mean and half the distance from lowest to highest, in percent: `91.9 ±0.6`."""
    mean = 100 * sum(values) / len(values)
    return f"{mean:.1f} ±{50 * (max(values) - min(values)):.1f}" if len(values) > 1 else f"{mean:.1f}"


def markdown(results: Mapping, axis: Mapping[str, Mapping]) -> str:
    """The tables as Markdown.

    Args:
        results: What `summary.collect` gave.
        axis: What `summary.data_axis` gave.
    """
    parts = [_rows(results), _axis(axis), _captioner(axis["captioner"]), _budgets(results), _choices(results)]
    return "\n\n".join([*parts, _ladders(results), _signals(results)]) + "\n"


def _rows(results: Mapping) -> str:
    families = [name for name in FAMILIES if name in results["chance"]["families"]]
    chance = results["chance"]
    lines = [
        "Held-out accuracy in percent, mean over the seeds (± half the range); against ToVE of the same base encoder: "
        "points, 95 % interval.",
        "",
        f"| row | seeds | overall | against ToVE | {' | '.join(families)} |",
        "|---|---|---|---|" + "---|" * len(families),
        _line("chance", ["", f"{100 * chance['overall']:.1f}", "", *(_percent(chance, name) for name in families)]),
    ]
    for row in results["rows"].values():
        if row["group"] == "captioner":
            continue
        by_seed = list(row["seeds"].values())
        cells = [str(len(by_seed)), mean_spread([seed["overall"] for seed in by_seed]), against(row)]
        for name in families:
            cells.append(f"{100 * sum(s['families'][name]['accuracy'] for s in by_seed) / len(by_seed):.1f}")
        lines.append(_line(row["label"], cells))
    return "\n".join(lines)


def against(row: Mapping) -> str:
    """A row's difference to ToVE: `-1.4 (-2.0 to -0.8)`; empty where there is none."""
    found = row.get("against_tove")
    return f"{found['difference']:+.1f} ({found['low']:+.1f} to {found['high']:+.1f})" if found else ""


def _axis(axis: Mapping[str, Mapping]) -> str:
    return _by_scenes(axis, "training scenes", lambda point: f"{_overall(point)} ({point['steps']} steps)")


def _captioner(axis: Mapping[str, Mapping]) -> str:
    def text(point: Mapping) -> str:
        cider = "" if point["cider"] is None else f", CIDEr {point['cider']:.0f}"
        return f"{_overall(point)}{cider} ({point['steps']} steps)"

    return _by_scenes(axis, "base model, objects named in its captions, %", text)


def _by_scenes(axis: Mapping[str, Mapping], title: str, text: Callable[[Mapping], str]) -> str:
    towers = {"clip": "CLIP-only", "tove": "ToVE"}
    scenes = sorted({int(number) for tower in towers for number in axis[tower]})
    lines = [_line(title, [f"{number:,}" for number in scenes]), "|---|" + "---|" * len(scenes)]
    for tower, label in towers.items():
        points = [axis[tower].get(str(number)) for number in scenes]
        lines.append(_line(label, [text(point) if point else "" for point in points]))
    return "\n".join(lines)


def _overall(point: Mapping) -> str:
    return f"{point['overall']:.1f} ±{point['spread'] / 2:.1f}"


def _budgets(results: Mapping) -> str:
    lines = ["| row | share of the steps | validation | leftright | rel_left |", "|---|---|---|---|---|"]
    for row_id, curve in results["budgets"].items():
        for budget, score in curve.items():
            cells = [budget, f"{100 * score['overall']:.1f}", *(_percent(score, f) for f in ("leftright", "rel_left"))]
            lines.append(_line(row_id, cells))
    return "\n".join(lines)


def _choices(results: Mapping) -> str:
    lines = ["| row | learning rate | steps | validation scores it was chosen by |", "|---|---|---|---|"]
    for row_id, choice in results["choices"].items():
        scores = ", ".join(f"{100 * score:.1f}" for score in choice["validation"].values())
        lines.append(_line(row_id, [f"× {choice['rate']:g}", f"× {choice['budget']:g}", scores]))
    return "\n".join(lines)


def _ladders(results: Mapping) -> str:
    lines = [
        "| row | seed | order of removal | with all | after each removal | mean term in its place | mean token |",
        "|---|---|---|---|---|---|---|",
    ]
    for row_id, by_seed in results["detach"].items():
        for seed, ladder in by_seed.items():
            ways = [[f"{100 * value:.1f}" for value in ladder.get(way, [])] for way in WAYS]
            cells = [seed, ", ".join(ladder["order"]), ways[0][0], *(" / ".join(way[1:]) for way in ways)]
            lines.append(_line(row_id, cells))
    return "\n".join(lines)


def _signals(results: Mapping) -> str:
    lines = [
        "Rank agreement with leave-one-out (Spearman, mean over the runs above), and how often the least is the least:",
        "",
        "| signal | loss, same scenes | points, held-out scenes | same least useful expert |",
        "|---|---|---|---|",
    ]
    for name, found in results["signals"].items():
        lines.append(_line(name, [f"{found['loss']:.2f}", f"{found['score']:.2f}", f"{100 * found['least']:.0f} %"]))
    return "\n".join(lines)


def _percent(part: Mapping, family: str) -> str:
    return f"{100 * part['families'][family]['accuracy']:.1f}"


def _line(label: str, cells: Sequence[str]) -> str:
    return f"| {label} | {' | '.join(cells)} |"
