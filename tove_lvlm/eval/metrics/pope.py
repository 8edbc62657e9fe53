"""POPE: whether an object is in the image, over three ways to pick the absent ones.

See docs/evaluation.md, "POPE".
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from . import binary

SPLITS = ("random", "popular", "adversarial")
CONVENTIONS = ("official", "lmms-eval", "vlmevalkit")


def read_answer(text: str, convention: str = "official") -> bool | None:
    """What an answer says: True for "yes"; None where it says neither.

    Args:
        text: The model's words.
        convention: `official` (POPE's and LLaVA's scripts) knows only "No", "no" and "not" among the blank-separated
            words before the first full stop, and takes all else for "yes", an empty text too. `lmms-eval` wants
            exactly "yes" or "no" in any case. `vlmevalkit` looks for one of the two words.
    """
    if convention == "vlmevalkit":
        return binary.yes_or_no(text)
    if convention == "lmms-eval":
        return {"yes": True, "no": False}.get(text.lower().strip())
    words = text.split(".")[0].replace(",", "").split(" ")
    return not {"No", "not", "no"} & set(words)


def score(
    predicted: Mapping[str, Sequence[bool | None]], gold: Mapping[str, Sequence[bool]], convention: str = "official"
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Metrics of all questions pooled, and of each split.

    Args:
        predicted: Split -> what was said, in order; None where nothing or neither was.
        gold: Split -> labels in the same order.
        convention: `official` and `lmms-eval` report fractions, `vlmevalkit` percents. What says neither is wrong
            everywhere; `lmms-eval` leaves it out of precision and recall, for the others it misses a "yes".

    Returns:
        As `Confusion.metrics`, pooled (with `mean_f1`, the splits' mean, which LLaVA publishes: first for `official`,
        after the pooled F1 for the others), and split -> the same. `yes_ratio` is always the share of predicted "yes",
        though lmms-eval's figure of that name is the labels'.
    """
    scale = 100.0 if convention == "vlmevalkit" else 1.0
    misses = convention != "lmms-eval"
    groups = {name: binary.count(predicted[name], gold[name], misses).metrics(scale) for name in gold}
    all_predicted = [prediction for name in gold for prediction in predicted[name]]
    all_gold = [label for labels in gold.values() for label in labels]
    pooled = binary.count(all_predicted, all_gold, misses).metrics(scale)
    mean_f1 = {"mean_f1": fmean(metrics["f1"] for metrics in groups.values())}
    headline = mean_f1 if convention == "official" else {"f1": pooled["f1"]} | mean_f1
    return headline | pooled, groups
