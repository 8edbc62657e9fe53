"""Intervals of shares."""

import math
import statistics


def wilson(share: float, num: int) -> tuple[float, float]:
    """95 % interval of a share by Wilson's score.

    It is of a model on more questions of this kind, and not of other trainings of it.

    Args:
        share: Of the questions that are right, in [0, 1].
        num: Of questions.

    Returns:
        Its lower and upper end, in [0, 1].
    """
    z = statistics.NormalDist().inv_cdf(0.975)
    middle = (share + z * z / (2 * num)) / (1 + z * z / num)
    half = z / (1 + z * z / num) * math.sqrt(share * (1 - share) / num + z * z / (4 * num * num))
    return max(0.0, middle - half), min(1.0, middle + half)
