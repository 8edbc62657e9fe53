"""Samples to a batch that stock `LlavaForConditionalGeneration` takes (our layout; LLaVA expands in its model).

A batch of texts alone carries one all-zero image: every rank must run the vision tower at every step, or ZeRO hangs.
Its placeholder tokens have no labels and nothing sees them: padded, they stand after the first row's text with
attention 0; without padding, they are a row of their own.

Shapes: R rows, T tokens, L labels, I images, 3 H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .conversations import IGNORE_INDEX, expand_image_tokens
from .dataset import Sample
from .errors import DataError
from .row_layout import Row, at_labels, concatenated, padded
from .turns import IMAGE_TOKEN


@dataclass(frozen=True, kw_only=True)
class ToVECollator:
    """Expands images, cuts at the context, puts the rows together (`row_layout`).

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
    padding_free: bool = False
    """Concatenate the rows instead of padding them, for a model whose attention knows rows (`lvlm.padding_free`)."""
    logits_at_labels: bool = False
    """Ask for logits only where a label is."""

    def __post_init__(self) -> None:
        find_image_token(self.tokenizer)  # fails here rather than in a worker

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Make a batch.

        Returns:
            Tokens and labels as in `row_layout`: `padded`, or `concatenated` where `padding_free`, and `at_labels`
            where asked. `pixel_values` (I, 3, H, W) float, images in the order of their placeholders. What is no
            input of the model: `sample_ids`, a list of R strings, `num_images` and `num_tokens`, without the all-zero
            image and its tokens.

        Raises:
            DataError: a sample whose images and placeholders differ, or whose image is cut by the context.
        """
        image_token_id = find_image_token(self.tokenizer)
        rows = [self._row(sample, image_token_id) for sample in samples]
        pixels = [sample["pixel_values"] for sample in samples if sample["pixel_values"] is not None]
        counts = {"num_images": sum(map(len, pixels)), "num_tokens": sum(len(row.ids) for row in rows)}
        hidden = None
        if not pixels:
            pixels = [torch.zeros(1, *self.image_shape)]
            hidden = Row([image_token_id] * self.num_image_tokens, [IGNORE_INDEX] * self.num_image_tokens)
        pad = self.tokenizer.pad_token_id
        batch = concatenated(rows, hidden) if self.padding_free else padded(rows, hidden, 0 if pad is None else pad)
        return {
            **(at_labels(batch) if self.logits_at_labels else batch),
            "pixel_values": torch.cat(pixels),
            "sample_ids": [sample["sample_id"] for sample in samples],
            **counts,
        }

    def _row(self, sample: Sample, image_token_id: int) -> Row:
        ids = expand_image_tokens(sample["input_ids"], sample["input_ids"], image_token_id, self.num_image_tokens)
        labels = expand_image_tokens(sample["labels"], sample["input_ids"], IGNORE_INDEX, self.num_image_tokens)
        ids, labels = ids[: self.model_max_length], labels[: self.model_max_length]
        num_places = ids.count(image_token_id)
        expected = 0 if sample["pixel_values"] is None else self.num_image_tokens * len(sample["pixel_values"])
        if num_places != expected:
            raise DataError(
                f"{num_places} image tokens within the context of {self.model_max_length}, expected {expected}",
                sample_id=sample["sample_id"],
            )
        return Row(ids, labels)


def find_image_token(tokenizer: Any) -> int:
    """Id of `<image>` in a tokenizer.

    Raises:
        ValueError: it has none.
    """
    token = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    if token is None or token == tokenizer.unk_token_id:
        raise ValueError(f"the tokenizer has no token {IMAGE_TOKEN}; add it with tokenizer.add_tokens first")
    return int(token)
