"""Training data of the base model: images with texts that a decoder learns to say, out of several sources.

Shapes: I images, R rows (texts), T tokens, 3 H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict

import torch
from torch.utils.data import Dataset

from .augment import augment
from .conversations import Encoded
from .errors import DataError
from .record_dataset import RecordDataset
from .records import Record
from .row_layout import Row, at_labels, padded
from .text_sources import SOURCES
from .turns import rounds


class TextEncoder(Protocol):
    """What the model's processor can: a row for each question about an image, with its answer."""

    def encode_rounds(self, pairs: Sequence[tuple[str, str]]) -> list[Encoded]: ...


class TextSample(TypedDict):
    """What the collator takes: an image and all that is said about it."""

    rows: list[Encoded]
    pixel_values: torch.Tensor
    sample_id: str


class TextDataset(RecordDataset[TextSample]):
    """One source: files of one format.

    Args:
        files: data files.
        encoder: the model's processor.
        source_format: a name of `text_sources.SOURCES`.
        prefix: what stands in place of a caption's question; None keeps the questions.
        augmented: whether images are cropped and flipped at random.
        seed: of that.
        **options: as `RecordDataset`.

    Raises:
        DataError, FileNotFoundError, ValueError: as `RecordDataset`.
    """

    def __init__(
        self,
        files: Sequence[str | Path],
        *,
        encoder: TextEncoder,
        source_format: str = "llava",
        prefix: str | None = None,
        augmented: bool = False,
        seed: int = 0,
        **options: Any,
    ):
        self.encoder, self.prefix, self.augmented, self.seed = encoder, prefix, augmented, seed
        source = SOURCES[source_format]
        super().__init__(files, reader=source.reader, convert=source.convert, **options)

    def sample(self, index: int, epoch: int) -> TextSample:
        """The sample as it is seen in an epoch: the text is the same, the crop another.

        Args:
            index: Of the sample.
            epoch: From 0.

        Raises:
            DataError: as for indexing.
        """
        return self._load_or_next(index, lambda record: self._load(record, (self.seed, epoch, index)))

    def _check_text(self, record: Record) -> None:
        num_texts = check_texts(record)
        self._check_images(record)
        if self.prefix is not None and num_texts > 1:
            raise DataError(f"a caption is one text, the conversation has {num_texts}; give its source as `task: vqa`")

    def _load_sample(self, record: Record) -> TextSample:
        return self._load(record, (self.seed, 0, 0))

    def _load(self, record: Record, seed: tuple[int, ...]) -> TextSample:
        pairs = rounds(record.conversation)
        if self.prefix is not None:
            pairs = [(self.prefix, answer) for _, answer in pairs]
        rows = self.encoder.encode_rounds(pairs)
        said = " ".join(text for pair in pairs for text in pair)
        change = (lambda image: augment(image, said, *seed)) if self.augmented else None
        pixels_3HW = self._read(record, record.images[0], change)
        return TextSample(rows=rows, pixel_values=pixels_3HW, sample_id=record.sample_id)


def check_texts(record: Record) -> int:
    """Number of texts about a sample's image.

    Raises:
        DataError: There is no image, or no text.
    """
    if not record.images:
        raise DataError("the sample has a text and no image")
    if len(record.images) > 1:
        raise DataError(f"the sample has {len(record.images)} images; the base model reads texts about one")
    return len(rounds(record.conversation))


class TextMix(Dataset[TextSample]):
    """Several sources as one data set. An index beyond its length is the same sample in a later epoch.

    Args:
        sources: In the order of their indices.
    """

    def __init__(self, sources: Sequence[TextDataset]):
        self.sources = list(sources)
        self.sizes = [len(source) for source in self.sources]
        self.shards = [source.records.shards for source in self.sources]

    def __len__(self) -> int:
        return sum(self.sizes)

    def __getitem__(self, index: int) -> TextSample:
        """Load a sample, see `TextDataset.sample`."""
        epoch, place = divmod(index, len(self))
        for source, size in zip(self.sources, self.sizes, strict=True):
            if place < size:
                return source.sample(place, epoch)
            place -= size
        raise IndexError(f"sample {index}")


@dataclass(frozen=True, kw_only=True)
class TextCollator:
    """Samples to a batch; texts are padded on the right, where a causal decoder does not look back from."""

    pad_token_id: int

    def __call__(self, samples: Sequence[TextSample]) -> dict[str, Any]:
        """Make a batch.

        Returns:
            `pixel_values` (I, 3, H, W); `input_ids` and `attention_mask` (R, T) int64; `labels` and `logits_to_keep`,
            see `row_layout.at_labels`; `image_of` (R,), the image of each row. What is no input of the model:
            `sample_ids`, a list of I strings, `num_images` and `num_tokens`.
        """
        rows = [row for sample in samples for row in sample["rows"]]
        batch = at_labels(padded([Row(row.input_ids, row.labels) for row in rows], None, self.pad_token_id))
        del batch["shift_labels"]
        return {
            **batch,
            "pixel_values": torch.stack([sample["pixel_values"] for sample in samples]),
            "image_of": torch.tensor([image for image, sample in enumerate(samples) for _ in sample["rows"]]),
            "sample_ids": [sample["sample_id"] for sample in samples],
            "num_images": len(samples),
            "num_tokens": sum(len(row.input_ids) for row in rows),
        }
