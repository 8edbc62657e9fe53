"""Samples to a batch that stock `LlavaForConditionalGeneration` takes (our layout; LLaVA expands in its model).

A batch of texts alone carries one all-zero image: every rank must run the vision tower at every step, or ZeRO hangs.
Its placeholder tokens stand after the first row's text with attention 0 and no labels, so that nothing sees them.

Shapes: R rows, T tokens, I images, 3 H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .conversations import IGNORE_INDEX, IMAGE_TOKEN, expand_image_tokens
from .dataset import Sample
from .errors import DataError


@dataclass(frozen=True, kw_only=True)
class ToVECollator:
    """Expands images, cuts at the context, pads on the right.

    Raises:
        ValueError: the tokenizer does not know the token `<image>`.
    """

    tokenizer: Any
    num_image_tokens: int
    """Tokens of one image."""
    image_shape: tuple[int, int, int]
    """(3, H, W) of every image; `images.pixel_shape(processor)` gives it."""
    model_max_length: int
    """The context."""

    def __post_init__(self) -> None:
        find_image_token(self.tokenizer)  # fails here rather than in a worker

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Make a batch.

        Returns:
            `input_ids`, `attention_mask` and `labels` (R, T) int64, `pixel_values` (I, 3, H, W) float, images in the
            order of their placeholders, and `sample_ids`, a list of R strings.

        Raises:
            DataError: a sample whose images and placeholders differ, or whose image is cut by the context.
        """
        image_token_id = find_image_token(self.tokenizer)
        rows = [self._row(sample, image_token_id) for sample in samples]
        pixels = [sample["pixel_values"] for sample in samples if sample["pixel_values"] is not None]
        masks = [[1] * len(ids) for ids, _ in rows]
        if not pixels:
            pixels = [torch.zeros(self.image_shape)]
            ids, labels = rows[0]
            rows[0] = (ids + [image_token_id] * self.num_image_tokens, labels + [IGNORE_INDEX] * self.num_image_tokens)
            masks[0] = masks[0] + [0] * self.num_image_tokens
        pad = self.tokenizer.pad_token_id
        return {
            "input_ids": _pad([ids for ids, _ in rows], 0 if pad is None else pad),
            "attention_mask": _pad(masks, 0),
            "labels": _pad([labels for _, labels in rows], IGNORE_INDEX),
            "pixel_values": torch.stack(pixels),
            "sample_ids": [sample["sample_id"] for sample in samples],
        }

    def _row(self, sample: Sample, image_token_id: int) -> tuple[list[int], list[int]]:
        ids = expand_image_tokens(sample["input_ids"], sample["input_ids"], image_token_id, self.num_image_tokens)
        labels = expand_image_tokens(sample["labels"], sample["input_ids"], IGNORE_INDEX, self.num_image_tokens)
        ids, labels = ids[: self.model_max_length], labels[: self.model_max_length]
        num_places = ids.count(image_token_id)
        expected = 0 if sample["pixel_values"] is None else self.num_image_tokens
        if num_places != expected:
            raise DataError(
                f"{num_places} image tokens within the context of {self.model_max_length}, expected {expected}",
                sample_id=sample["sample_id"],
            )
        return ids, labels


def find_image_token(tokenizer: Any) -> int:
    """Id of `<image>` in a tokenizer.

    Raises:
        ValueError: it has none.
    """
    token = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    if token is None or token == tokenizer.unk_token_id:
        raise ValueError(f"the tokenizer has no token {IMAGE_TOKEN}; add it with tokenizer.add_tokens first")
    return int(token)


def _pad(rows: list[list[int]], value: int) -> torch.Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([row + [value] * (width - len(row)) for row in rows], dtype=torch.int64)
