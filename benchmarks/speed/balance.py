"""How evenly the sampler deals LLaVA's rows over ranks, and how much of a padded batch is padding.

All ranks wait for the slowest one in every step, so what counts is the largest share of a step's work, not the mean.

Shapes: S steps, R ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from speed.lengths import RowLength
from tove_lvlm.data.sampler import ModalityLengthSampler
from tove_lvlm.train.loop import RankBatches


@dataclass(frozen=True)
class Dealt:
    """What each rank gets in each step."""

    images_SR: np.ndarray
    tokens_SR: np.ndarray
    """Of the rows, images' included."""
    squares_SR: np.ndarray
    """Sum over the rows of their tokens' square."""
    places_SR: np.ndarray
    """Tokens of the padded batch: rows times the longest one."""
    padded_squares_SR: np.ndarray


def deal(
    rows: Sequence[RowLength], ranks: int, batch_size: int, image_tokens: int, max_tokens: int, seed: int = 0
) -> Dealt:
    """An epoch of rows as the sampler of stage 2 deals them; what does not fill the last step is left out.

    Args:
        rows: The data set.
        ranks: R.
        batch_size: Rows of a rank and step.
        image_tokens: Of one image.
        max_tokens: The context; longer rows are cut.
        seed: Of the order.
    """
    text = np.array([row.question_tokens + row.answer_tokens for row in rows])
    has_image = np.array([row.has_image for row in rows])
    sampler = ModalityLengthSampler(np.where(has_image, text, -text), batch_size, ranks, seed)
    # Of one rank: micro-batch m of rank r is the (m * R + r)-th of all.
    batches = list(RankBatches(sampler, batch_size, rank=0, world_size=1))
    steps = len(rows) // (ranks * batch_size)
    order_SRb = np.array(batches[: steps * ranks]).reshape(steps, ranks, batch_size)
    tokens_SRb = np.minimum(text + image_tokens * has_image, max_tokens)[order_SRb]
    longest_SR = tokens_SRb.max(2)
    return Dealt(
        images_SR=has_image[order_SRb].sum(2),
        tokens_SR=tokens_SRb.sum(2),
        squares_SR=(tokens_SRb**2).sum(2),
        places_SR=batch_size * longest_SR,
        padded_squares_SR=batch_size * longest_SR**2,
    )


def slowest_over_mean(work_SR: np.ndarray) -> float:
    """A step's largest share of the work over the mean one, averaged over the steps."""
    return float((work_SR.max(1) / work_SR.mean(1)).mean())


def balance(dealt: Dealt) -> dict[str, float]:
    """The figures of one number of ranks, with and without padding.

    Args:
        dealt: Of `deal`.
    """
    padded = float((dealt.places_SR.max(1) / dealt.tokens_SR.mean(1)).mean())
    return {
        "slowest_over_mean": round(slowest_over_mean(dealt.tokens_SR), 4),
        "padded_slowest_over_mean": round(slowest_over_mean(dealt.places_SR), 4),
        "padding_share": round(1 - float(dealt.tokens_SR.sum() / dealt.places_SR.sum()), 4),
        "padded_slowest_over_mean_tokens": round(padded, 4),
        "tokens_per_rank_and_step": round(float(dealt.tokens_SR.mean()), 1),
        "steps": len(dealt.tokens_SR),
    }
