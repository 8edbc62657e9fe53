"""Is a row different from ToVE, or only lucky: the difference of two rows on the same questions, with its interval."""

import math
from collections.abc import Mapping
from statistics import NormalDist, fmean, variance

Z = NormalDist().inv_cdf(0.975)


def difference(row: Mapping[str, Mapping], other: Mapping[str, Mapping]) -> dict | None:
    """`row` minus `other` in points, over the seeds that both have, with a 95 % interval.

    Both answer the same scenes, so the scenes are paired; the seeds are paired too, as they share the order of the
    data. The variance of the mean over scenes and that over seeds are added (two crossed random effects, our choice);
    of one seed the second part is not known, and the interval is then of the scenes alone.

    Args:
        row: Seed -> a score with `by_scene` and `families`.
        other: The same of what it is compared with.

    Returns:
        `difference`, `low`, `high` in points and `seeds`; None if no seed is in both.
    """
    seeds = sorted(row.keys() & other.keys(), key=int)
    if not seeds:
        return None
    num_questions = sum(family["n"] for family in row[seeds[0]]["families"].values())
    right = [(scene_counts(row[seed]), scene_counts(other[seed])) for seed in seeds]
    by_seed = [[ours - theirs for ours, theirs in zip(*pair, strict=True)] for pair in right]
    by_scene = [fmean(values) for values in zip(*by_seed, strict=True)]
    mean = sum(by_scene) / num_questions
    squared = len(by_scene) * variance(by_scene) / num_questions**2
    if len(seeds) > 1:
        squared += variance([sum(values) / num_questions for values in by_seed]) / len(seeds)
    half = Z * math.sqrt(squared)
    points = {"difference": mean, "low": mean - half, "high": mean + half}
    return {name: round(100 * value, 2) for name, value in points.items()} | {"seeds": len(seeds)}


def pack_counts(counts: list[int]) -> str:
    """Right answers of each scene, one hexadecimal digit each, so that a JSON file stays short.

    Raises:
        ValueError: A scene has more than 15.
    """
    if max(counts, default=0) > 15:
        raise ValueError(f"a scene with {max(counts)} right answers does not fit into a hexadecimal digit")
    return "".join(f"{count:x}" for count in counts)


def scene_counts(score: Mapping) -> list[int]:
    """What `pack_counts` packed in a score."""
    return [int(digit, 16) for digit in score["by_scene"]]
