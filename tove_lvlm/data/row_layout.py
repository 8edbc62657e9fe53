"""The rows of a batch as tensors: padded on the right, or concatenated without padding; and labels alone.

Concatenated rows are what transformers' `DataCollatorWithFlattening` makes: positions start again with each row, and
the attention is told where rows end. `logits_to_keep` names the places that predict a label, so that no logits are
computed for the others; places and not a mask, because the host would wait for a device to count a mask's ones.

Shapes: R rows, T tokens of the longest row or, concatenated, of all rows, L labels of the row that has most.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, chain
from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

from .conversations import IGNORE_INDEX

NOT_FOR_THE_MODEL = ("sample_ids", "num_images", "num_tokens")
"""Entries of a batch that messages and logs read."""


def model_inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A collator's batch without what only messages and logs read."""
    return {name: value for name, value in batch.items() if name not in NOT_FOR_THE_MODEL}


class Row(NamedTuple):
    """One row's tokens and labels, each label at its own token's place."""

    ids: list[int]
    labels: list[int]


def padded(rows: Sequence[Row], hidden: Row | None, pad_token_id: int) -> dict[str, torch.Tensor]:
    """Rows side by side.

    Args:
        rows: At least one.
        hidden: Tokens that must be in the batch and that nothing may attend to; they stand after the first row.
        pad_token_id: Stands where a row has ended.

    Returns:
        `input_ids`, `attention_mask` and `labels`, (R, T) int64.
    """
    masks = [[1] * len(row.ids) for row in rows]
    if hidden is not None:
        rows = [Row(rows[0].ids + hidden.ids, rows[0].labels + hidden.labels), *rows[1:]]
    return {
        "input_ids": _pad([row.ids for row in rows], pad_token_id),
        "attention_mask": _pad(masks, 0, max(len(row.ids) for row in rows)),
        "labels": _pad([row.labels for row in rows], IGNORE_INDEX),
    }


def concatenated(rows: Sequence[Row], hidden: Row | None) -> dict[str, Any]:
    """Rows behind each other as one row.

    Args:
        rows: At least one.
        hidden: As for `padded`; here it is a row of its own, the last.

    Returns:
        `input_ids`, `labels` and `position_ids`, (1, T) int64; the first label of a row is dropped, since nothing of
        its own row predicts it. For the attention: `row_lengths`, a tuple of integers, and as flash attention takes
        them, `cu_seq_lens_q` and `cu_seq_lens_k`, (R + 1,) int32, `max_length_q` and `max_length_k`.
    """
    rows = [*rows, *([] if hidden is None else [hidden])]
    lengths = tuple(len(row.ids) for row in rows)
    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    return {
        "input_ids": _one_row(row.ids for row in rows),
        "labels": _one_row([IGNORE_INDEX, *row.labels[1:]] for row in rows),
        "position_ids": _one_row(range(length) for length in lengths),
        "row_lengths": lengths,
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
    }


def at_labels(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch whose logits are wanted only where a label is.

    Args:
        batch: Of `padded` or `concatenated`.

    Returns:
        The batch with `logits_to_keep`, the places that predict a label, and `labels` and `shift_labels`, what they
        predict, all (R, L) int64. Rows with fewer labels are filled up with place 0 and no label.
    """
    shifted_RT = batch["labels"][:, 1:]
    of_rows = [row_T.ne(IGNORE_INDEX).nonzero().flatten() for row_T in shifted_RT]
    places_RL = pad_sequence(of_rows, batch_first=True)
    labels_RL = pad_sequence(
        [row_T[places] for row_T, places in zip(shifted_RT, of_rows, strict=True)],
        batch_first=True,
        padding_value=IGNORE_INDEX,
    )
    return batch | {"labels": labels_RL, "shift_labels": labels_RL, "logits_to_keep": places_RL}


def _pad(rows: Sequence[Sequence[int]], value: int, width: int | None = None) -> torch.Tensor:
    width = width or max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], dtype=torch.int64)


def _one_row(parts: Any) -> torch.Tensor:
    return torch.tensor([list(chain.from_iterable(parts))], dtype=torch.int64)
