"""What every training data set of ours does: records in, samples out, broken ones raised or skipped.

Texts are checked when the data set is made; images are opened when a sample is asked for. What a sample gives depends
on its index alone, whatever the number of workers, with bad samples skipped or not.
"""

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from PIL import Image
from torch.utils.data import Dataset

from .entries import Reader
from .errors import DataError
from .images import MAX_PIXELS, check_aspect_ratio, flatten, pixel_shape, read_image, resolve_image, to_pixels
from .records import READ_SAMPLES, Record, RecordImage, Records
from .skips import Skips

logger = logging.getLogger(__name__)

ON_ERROR = ("raise", "skip")
SampleT = TypeVar("SampleT")


class RecordDataset(Dataset[SampleT], Generic[SampleT]):
    """Samples of one or several files, with their images.

    Args:
        files: data file, or several.
        image_processor: the vision tower's image processor.
        image_folder: folder of all image paths.
        image_aspect_ratio: `square` or `pad`.
        on_error: `raise` stops at the first bad sample; `skip` puts the next good sample of the same modality in its
            place, logs it, and stops when too many are bad.
        max_error_share: share of all samples that may be bad with `skip`.
        min_errors: that many bad samples are always allowed with `skip`.
        allow_symlinks: accept links inside the image folder that lead out of it.
        max_pixels: largest image that is decoded.
        reader: gives the files' entries, see `Records.load`; JSON, JSONL and shards by default.
        convert: turns an entry into a LLaVA sample, see there.
        as_bytes: samples' pixels are uint8, see `pixel_table`.
        reduce_large_images: decode large JPEGs at a reduced size, see `read_image`.
        direct_resize: resize only what is kept, see `to_pixels`.

    Raises:
        DataError: no samples, or a bad one (see `on_error`).
        FileNotFoundError: a data file or the image folder is missing.
        ValueError: an argument that is not valid.
    """

    def __init__(
        self,
        files: str | Path | Sequence[str | Path],
        *,
        image_processor: Any,
        image_folder: str | Path | None = None,
        image_aspect_ratio: str = "square",
        on_error: str = "raise",
        max_error_share: float = 0.01,
        min_errors: int = 5,
        allow_symlinks: bool = False,
        max_pixels: int = MAX_PIXELS,
        reader: Reader = READ_SAMPLES,
        convert: Callable[[Any], Any] | None = None,
        as_bytes: bool = False,
        reduce_large_images: bool = False,
        direct_resize: bool = False,
    ):
        check_aspect_ratio(image_aspect_ratio)
        if on_error not in ON_ERROR:
            raise ValueError(f"unknown on_error {on_error!r}; choose from {', '.join(ON_ERROR)}")
        if not 0 <= max_error_share <= 1:
            raise ValueError(f"max_error_share must lie in [0, 1], got {max_error_share}")
        if image_folder is not None and not Path(image_folder).is_dir():
            raise FileNotFoundError(f"image_folder {image_folder} is not a folder")
        self.image_processor = image_processor
        self.as_bytes = as_bytes
        self._direct_resize = direct_resize
        self._reduce_to = max(pixel_shape(image_processor)[1:]) if reduce_large_images else None
        self.image_folder = image_folder
        self.image_aspect_ratio = image_aspect_ratio
        self.on_error = on_error
        self.allow_symlinks = allow_symlinks
        self.max_pixels = max_pixels
        files = [files] if isinstance(files, str | Path) else list(files)
        if not files:
            raise ValueError("files is empty; name at least one JSON or JSONL file")
        bad: list[DataError] = []
        self.records = Records.load(
            files, self._check_text, bad.append if on_error == "skip" else None, convert, reader
        )
        num_all = len(self.records) + len(bad)
        self.skips = Skips(len(self.records), max_error_share, min_errors, already=len(bad))
        for error in bad[: self.skips.max_errors + 1]:
            logger.warning("sample left out: %s", error)
        if bad:
            self.skips.check(bad[-1])
            logger.warning("%d of %d samples left out for their text", len(bad), num_all)
        if not len(self.records):
            raise DataError("no sample can be used", file=files[0])
        with_image = int(self.records.has_image.sum())
        logger.info("%d samples with an image, %d of text alone", with_image, len(self.records) - with_image)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> SampleT:
        """Load a sample.

        Raises:
            DataError: it is bad and `on_error` is `raise`, or too many are bad.
            IndexError: out of range.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self._load_or_next(index % len(self), self._load_sample)

    def images_of(self, index: int) -> list[tuple[Any, ...]]:
        """What tells a sample's images from those of other samples.

        Args:
            index: Of the sample.
        """
        record = self.records[index]
        return [(one.name,) if one.place is None else (record.file, *one) for one in record.images]

    def pixels(self, index: int, number: int = 0) -> torch.Tensor:
        """(3, H, W) pixels of a sample's image, unchanged by augmentation; bytes where samples have them.

        Args:
            index: Of a sample with an image.
            number: Which of its images.

        Raises:
            DataError: It cannot be read.
        """
        record = self.records[index]
        try:
            return self._read(record, record.images[number])
        except DataError as error:
            raise error.at(file=record.file, sample_id=record.sample_id) from error

    @abstractmethod
    def _check_text(self, record: Record) -> None:
        """Raise DataError for a record whose text cannot be used."""

    @abstractmethod
    def _load_sample(self, record: Record) -> SampleT:
        """The sample, its image read; raises DataError for a bad one."""

    def _load_or_next(self, index: int, load: Callable[[Record], SampleT]) -> SampleT:
        for candidate in self._candidates(index):
            record = self.records[candidate]
            try:
                return load(record)
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

    def _check_images(self, record: Record) -> None:
        """Raise DataError where nothing says in which folder the images are."""
        if any(image.place is None for image in record.images):
            self._folder()

    def _folder(self) -> str | Path:
        if self.image_folder is None:
            raise DataError("the sample has an image but image_folder is not set")
        return self.image_folder

    def _read(
        self, record: Record, image: RecordImage, change: Callable[[Image.Image], Image.Image] | None = None
    ) -> torch.Tensor:
        """(3, H, W) pixels of a sample's image, in the folder or in the sample's file, after `change`."""
        if image.place is not None:
            content = BytesIO(record.stored(image))
            picture = read_image(content, name=image.name, max_pixels=self.max_pixels, reduce_to=self._reduce_to)
        else:
            path = resolve_image(self._folder(), image.name, allow_symlinks=self.allow_symlinks)
            picture = read_image(path, max_pixels=self.max_pixels, reduce_to=self._reduce_to)
        if change is not None:
            picture = change(flatten(picture, getattr(self.image_processor, "transparency", "ignore")))
        return to_pixels(
            picture,
            self.image_processor,
            self.image_aspect_ratio,
            self.max_pixels,
            self.as_bytes,
            self._direct_resize,
        )
