"""The base model's benchmark in figures: means over the seeds, their spread, and a table.

{seeds, variants: {clip | tove | detached | merged | matched: {cider, vsr, pope_f1, vqa, recall: {...}, ...}},
 spread: the same, data: {1/100 | 1/10 | 1: {clip | tove: the same}}, vsr_interval: {variant: [low, high]}}
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .base import SHARES
from .intervals import wilson

VARIANTS = ("clip", "matched", "tove", "detached", "merged")
NUMBERS = ("cider", "vsr", "pope_f1", "vqa")
NESTED = ("recall", "vsr_by_relation", "families")


def summarise(runs: Mapping[str, Mapping[str, dict]]) -> dict[str, Any]:
    """Means, and beside them how far the lowest and the highest seed lie apart; two decimals.

    Args:
        runs: Row -> seed -> what `base.evaluate` found.
    """
    done = {row_id: list(by_seed.values()) for row_id, by_seed in runs.items()}
    shown = [variant for variant in VARIANTS if variant in done]
    data = {share: {name: done.get(f"{name}_{share}") for name in ("clip", "tove")} for share in SHARES}
    data["1"] = {name: done.get(name) for name in ("clip", "tove")}
    return {
        "seeds": sorted({int(seed) for by_seed in runs.values() for seed in by_seed}),
        "seeds_of": {row_id: sorted(map(int, by_seed)) for row_id, by_seed in runs.items()},
        "variants": {variant: _over_seeds(done[variant], statistics.mean) for variant in shown},
        "spread": {variant: _over_seeds(done[variant], lambda found: max(found) - min(found)) for variant in shown},
        "vsr_interval": {variant: _interval(done[variant]) for variant in shown},
        "data": {
            share: {name: _over_seeds(found, statistics.mean) for name, found in of_share.items() if found}
            for share, of_share in data.items()
        },
    }


def _over_seeds(found: Sequence[dict], combine) -> dict[str, Any]:
    return {name: _combined([one[name] for one in found], combine) for name in NUMBERS} | {
        name: {key: _combined([one[name][key] for one in found], combine) for key in found[0][name]} for name in NESTED
    }


def _combined(values: Sequence[float | None], combine) -> float | None:
    known = [value for value in values if value is not None]
    return round(combine(known), 2) if known else None


def _interval(found: Sequence[dict]) -> list[float]:
    """95 % interval (Wilson's) of the statements that are right, those of all seeds together, in percent.

    The seeds judge the same statements, so it is of the models and not of the world.
    """
    num = sum(one["vsr_n"] for one in found)
    share = sum(one["vsr"] / 100 * one["vsr_n"] for one in found) / num
    return [round(100 * end, 2) for end in wilson(share, num)]


def table(results: Mapping[str, Any]) -> str:
    """The means, a line each, then CIDEr and recall by the share of the scenes."""
    variants = results["variants"]
    lines = [f"{'':<28}" + "".join(f"{variant:>12}" for variant in variants)]
    first = next(iter(variants.values()))
    keys = [(name, None) for name in NUMBERS] + [(name, key) for name in NESTED for key in first[name]]
    for name, key in keys:
        cells = [found[name] if key is None else found[name][key] for found in variants.values()]
        lines.append(_line(name if key is None else f"{name}/{key}", cells))
    for share, found in results["data"].items():
        for metric in ("cider", "recall/objects"):
            name, _, key = metric.partition("/")
            cells = [found[one][name] if not key else found[one][name][key] for one in ("clip", "tove") if one in found]
            if cells:
                lines.append(_line(f"{share} of scenes: {metric}", cells))
    return "\n".join(lines)


def _line(name: str, cells: Sequence[float | None]) -> str:
    return f"{name:<28}" + "".join(f"{'-' if cell is None else f'{cell:.1f}':>12}" for cell in cells)
