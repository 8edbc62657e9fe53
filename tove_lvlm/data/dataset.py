"""The training data set: LLaVA JSON in, encoded conversations and pixels out (LLaVA's LazySupervisedDataset)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch

from .conversations import CHAT, IGNORE_INDEX, IMAGE_TOKEN_INDEX, V1, Encoded, encode, get_template, has_answer
from .errors import DataError
from .record_dataset import RecordDataset
from .records import Record


class Sample(TypedDict):
    """What the collator takes."""

    input_ids: list[int]
    labels: list[int]
    pixel_values: torch.Tensor | None
    """(I, 3, H, W), its images in the order of their places; None without one."""
    sample_id: str


class ToVEDataset(RecordDataset[Sample]):
    """Conversations of one or several LLaVA files, with their images.

    Args:
        files: JSON or JSONL file, a webdataset shard, or several.
        tokenizer: the language model's tokenizer.
        num_image_tokens: tokens that an image takes in the context.
        model_max_length: the context; longer samples lose their end, as in LLaVA.
        template: `plain` (stage 1), or `conversations.template_of` the tokenizer (stage 2).
        **options: as `RecordDataset`.

    Raises:
        DataError, FileNotFoundError, ValueError: as `RecordDataset`.
    """

    def __init__(
        self,
        files: str | Path | Sequence[str | Path],
        *,
        tokenizer: Any,
        num_image_tokens: int,
        model_max_length: int,
        template: str = V1,
        **options: Any,
    ):
        self.tokenizer = tokenizer
        self.num_image_tokens = num_image_tokens
        self.model_max_length = model_max_length
        self.template = CHAT if template == CHAT else get_template(template).name
        super().__init__(files, **options)

    @property
    def lengths(self) -> np.ndarray:
        """(S,) LLaVA's length estimates, for grouping by length."""
        return self.records.lengths

    @property
    def modality_lengths(self) -> np.ndarray:
        """(S,) the same without the image's share and negative for text-only samples, for grouping by modality."""
        return self.records.modality_lengths

    def _check_text(self, record: Record) -> None:
        check_conversation(record, self.template)
        self._check_images(record)

    def _load_sample(self, record: Record) -> Sample:
        encoded = encode(self.tokenizer, record.conversation, self.template, len(record.images))
        check_context(encoded, self.num_image_tokens, self.model_max_length)
        return Sample(
            input_ids=encoded.input_ids,
            labels=encoded.labels,
            pixel_values=torch.stack([self._read(record, image) for image in record.images]) if record.images else None,
            sample_id=record.sample_id,
        )


def check_conversation(record: Record, template: str) -> None:
    """Check that a sample's text is a conversation with something to learn.

    Raises:
        DataError: It is none, or has no answer.
    """
    if not has_answer(record.conversation, len(record.images), template):
        raise DataError("the conversation has no answer to learn from")


def check_context(encoded: Encoded, num_image_tokens: int, max_length: int) -> None:
    """Check that a sample is worth its place once its end is cut at `max_length`.

    Raises:
        DataError: the cut would go through the image or leave no label.
    """
    position = 0
    learns = False
    for token, label in zip(encoded.input_ids, encoded.labels, strict=True):
        position += num_image_tokens if token == IMAGE_TOKEN_INDEX else 1
        if position > max_length:
            if token == IMAGE_TOKEN_INDEX:
                raise DataError(f"the image's {num_image_tokens} tokens do not fit into the context of {max_length}")
            break
        learns = learns or label != IGNORE_INDEX
    if not learns:
        reason = "the first answer starts after" if position > max_length else "no label is left within"
        raise DataError(f"{reason} the end of the context of {max_length} tokens")
