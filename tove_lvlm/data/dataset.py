"""The training data set: LLaVA JSON in, encoded conversations and pixels out (LLaVA's LazySupervisedDataset).

Texts are checked when the data set is made; images are opened when a sample is asked for. What a sample gives depends
on its index alone, whatever the number of workers, with bad samples skipped or not.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch.utils.data import Dataset

from .conversations import IGNORE_INDEX, IMAGE_TOKEN_INDEX, Encoded, encode, get_template, render
from .errors import DataError
from .images import MAX_PIXELS, check_aspect_ratio, read_image, resolve_image, to_pixels
from .records import Record, Records
from .skips import Skips

logger = logging.getLogger(__name__)

ON_ERROR = ("raise", "skip")


class Sample(TypedDict):
    """What the collator takes."""

    input_ids: list[int]
    labels: list[int]
    pixel_values: torch.Tensor | None
    sample_id: str


class ToVEDataset(Dataset[Sample]):
    """Conversations of one or several LLaVA files, with their images.

    Args:
        files: JSON or JSONL file, or several.
        tokenizer: the language model's tokenizer.
        image_processor: the vision tower's image processor.
        num_image_tokens: tokens that an image takes in the context.
        model_max_length: the context; longer samples lose their end, as in LLaVA.
        template: `plain` (stage 1) or `v1` (stage 2).
        image_folder: folder of all image paths.
        image_aspect_ratio: `square` or `pad`.
        on_error: `raise` stops at the first bad sample; `skip` puts the next good sample of the same modality in its
            place, logs it, and stops when too many are bad.
        max_error_share: share of all samples that may be bad with `skip`.
        min_errors: that many bad samples are always allowed with `skip`.
        allow_symlinks: accept links inside the image folder that lead out of it.
        max_pixels: largest image that is decoded.

    Raises:
        DataError: no samples, or a bad one (see `on_error`).
        FileNotFoundError: a data file or the image folder is missing.
        ValueError: an argument that is not valid.
    """

    def __init__(
        self,
        files: str | Path | Sequence[str | Path],
        *,
        tokenizer: Any,
        image_processor: Any,
        num_image_tokens: int,
        model_max_length: int,
        template: str = "v1",
        image_folder: str | Path | None = None,
        image_aspect_ratio: str = "square",
        on_error: str = "raise",
        max_error_share: float = 0.01,
        min_errors: int = 5,
        allow_symlinks: bool = False,
        max_pixels: int = MAX_PIXELS,
    ):
        check_aspect_ratio(image_aspect_ratio)
        if on_error not in ON_ERROR:
            raise ValueError(f"unknown on_error {on_error!r}; choose from {', '.join(ON_ERROR)}")
        if not 0 <= max_error_share <= 1:
            raise ValueError(f"max_error_share must lie in [0, 1], got {max_error_share}")
        if image_folder is not None and not Path(image_folder).is_dir():
            raise FileNotFoundError(f"image_folder {image_folder} is not a folder")
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.num_image_tokens = num_image_tokens
        self.model_max_length = model_max_length
        self.template = get_template(template)
        self.image_folder = image_folder
        self.image_aspect_ratio = image_aspect_ratio
        self.on_error = on_error
        self.allow_symlinks = allow_symlinks
        self.max_pixels = max_pixels
        files = [files] if isinstance(files, str | Path) else list(files)
        if not files:
            raise ValueError("files is empty; name at least one JSON or JSONL file")
        self._load(files, max_error_share, min_errors)

    def _load(self, files: list[str | Path], max_error_share: float, min_errors: int) -> None:
        bad: list[DataError] = []
        self.records = Records.load(files, self._check_text, bad.append if self.on_error == "skip" else None)
        num_all = len(self.records) + len(bad)
        self.skips = Skips(len(self.records), max_error_share, min_errors, already=len(bad))
        for error in bad[: self.skips.max_errors + 1]:
            logger.warning("sample left out: %s", error)
        if bad:
            self.skips.check(bad[-1])
            logger.warning("%d of %d samples left out for their text", len(bad), num_all)
        if not len(self.records):
            raise DataError("no sample can be used", file=files[0])

    def __len__(self) -> int:
        return len(self.records)

    @property
    def lengths(self) -> np.ndarray:
        """(S,) LLaVA's length estimates, for grouping by length."""
        return self.records.lengths

    @property
    def modality_lengths(self) -> np.ndarray:
        """(S,) the same without the image's share and negative for text-only samples, for grouping by modality."""
        return self.records.modality_lengths

    def __getitem__(self, index: int) -> Sample:
        """Load a sample.

        Raises:
            DataError: it is bad and `on_error` is `raise`, or too many are bad.
            IndexError: out of range.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        for candidate in self._candidates(index % len(self)):
            record = self.records[candidate]
            try:
                return self._load_sample(record)
            except DataError as error:
                located = error.at(file=record.file, sample_id=record.sample_id)
                if self.on_error == "raise":
                    raise located from error
                self.skips.add(candidate, located)
        raise DataError("no sample can be used", file=self.records[0].file)

    def _candidates(self, index: int) -> Iterator[int]:
        """The sample, then what may stand in for it: the next ones of the same modality, around the end."""
        has_image = self.records.has_image
        for step in range(len(self)):
            candidate = (index + step) % len(self)
            if has_image[candidate] == has_image[index]:
                yield candidate

    def _check_text(self, record: Record) -> None:
        has_image = record.image is not None
        if not render(self.template, record.conversation, has_image).answers:
            raise DataError("the conversation has no answer to learn from")
        if has_image:
            self._folder()

    def _folder(self) -> str | Path:
        if self.image_folder is None:
            raise DataError("the sample has an image but image_folder is not set")
        return self.image_folder

    def _load_sample(self, record: Record) -> Sample:
        encoded = encode(self.tokenizer, record.conversation, self.template.name, record.image is not None)
        check_context(encoded, self.num_image_tokens, self.model_max_length)
        pixels_3HW = None
        if record.image is not None:
            path = resolve_image(self._folder(), record.image, allow_symlinks=self.allow_symlinks)
            image = read_image(path, max_pixels=self.max_pixels)
            pixels_3HW = to_pixels(image, self.image_processor, self.image_aspect_ratio, self.max_pixels)
        return Sample(
            input_ids=encoded.input_ids,
            labels=encoded.labels,
            pixel_values=pixels_3HW,
            sample_id=record.sample_id,
        )


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
