"""Row lengths of LLaVA-1.5's 665K mixture, as modelled.

The ten components and their numbers of rows are those of LLaVA-1.5's table 7. The mean text tokens, the spread and the
share of a text that is answer are our estimates: the files themselves are not here.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Component:
    """One data set of the mixture; lengths are log-normal."""

    name: str
    thousands: int
    """Rows."""
    mean_tokens: float
    """Text tokens of a row, questions and answers."""
    sigma: float
    """Standard deviation of the logarithm."""
    answer_share: float
    """Of the text tokens; the rest has no label."""
    has_image: bool = True


MIXTURE = (
    Component("llava_158k", 158, 330, 0.55, 0.75),
    Component("sharegpt", 40, 1300, 0.7, 0.7, has_image=False),
    Component("vqav2", 83, 170, 0.45, 0.15),
    Component("gqa", 72, 330, 0.35, 0.15),
    Component("okvqa", 9, 110, 0.3, 0.2),
    Component("ocrvqa", 80, 200, 0.2, 0.25),
    Component("aokvqa", 66, 110, 0.3, 0.15),
    Component("textcaps", 22, 75, 0.2, 0.4),
    Component("refcoco", 48, 430, 0.6, 0.4),
    Component("visual_genome", 86, 480, 0.6, 0.4),
)


class RowLength(NamedTuple):
    """One row's text."""

    question_tokens: int
    answer_tokens: int
    has_image: bool


def sample_rows(num_rows: int, max_tokens: int, seed: int) -> list[RowLength]:
    """Rows of the mixture, in random order.

    Args:
        num_rows: How many.
        max_tokens: Longest text; longer ones are cut, as the context cuts them.
        seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    shares = np.array([component.thousands for component in MIXTURE], dtype=float)
    rows = []
    for index in rng.choice(len(MIXTURE), size=num_rows, p=shares / shares.sum()):
        component = MIXTURE[index]
        mu = np.log(component.mean_tokens) - component.sigma**2 / 2  # the mean of the lengths is the one stated
        total = int(min(max(np.exp(rng.normal(mu, component.sigma)), 8), max_tokens))
        answer = max(2, round(total * component.answer_share))
        rows.append(RowLength(max(2, total - answer), answer, component.has_image))
    return rows
