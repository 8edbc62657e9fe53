"""The images that a student learns from: folders, or the images of LLaVA JSON files. No text is needed."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset

from ...config import ConfigError
from ...data.errors import DataError
from ...data.images import read_image, resolve_image, to_pixels
from ...data.records import Records
from ...data.skips import Skips

logger = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class ImageSample(NamedTuple):
    """One image."""

    pixels_3HW: torch.Tensor
    name: str


class ImageDataset(Dataset):
    """Pixels of each image; a broken one is skipped, counted and replaced by the next.

    Args:
        sources: Folders and JSON files, in this order; an image that comes twice counts once.
        image_processor: Of the tower.
        aspect_ratio: As `data.images.to_pixels`.
        image_folder: For the JSON files.
        max_error_share: Share of images that may be broken.
        allow_symlinks: As `data.images.resolve_image`.
        direct_resize: As `data.images.to_pixels`.

    Raises:
        ConfigError: There is no image.
    """

    def __init__(
        self,
        sources: Sequence[str | Path],
        image_processor: Any,
        aspect_ratio: str = "square",
        *,
        image_folder: str | Path | None = None,
        max_error_share: float = 0.01,
        allow_symlinks: bool = False,
        direct_resize: bool = False,
    ):
        self.image_processor, self.aspect_ratio = image_processor, aspect_ratio
        self._direct_resize = direct_resize
        image_folder = None if image_folder is None else Path(image_folder)
        self.image_folder, self.allow_symlinks = image_folder, allow_symlinks
        self._images = list(dict.fromkeys(image for source in sources for image in self._list(Path(source))))
        self.names = [name if root == image_folder else str(root / name) for root, name in self._images]
        """Absolute paths, or paths inside `image_folder` as the JSON files have them."""
        self.skips = Skips(len(self.names), max_error_share)

    def _list(self, source: Path) -> list[tuple[Path, str]]:
        """(folder, path within it) of a source's images."""
        if source.is_dir():
            root = source.resolve()
            found = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
            if not found:
                raise ConfigError(f"`data.images`: folder `{source}` holds no image ({', '.join(SUFFIXES)})")
            return [(root, path.relative_to(root).as_posix()) for path in found]
        if self.image_folder is None:
            raise ConfigError(f"`data.images` names {source}, so `data.image_folder` must say where its images are")
        records = Records.load([source], check=lambda record: None)
        names = [image.name for i in range(len(records)) if records.has_image[i] for image in records[i].images]
        if not names:
            raise ConfigError(f"`data.images`: {source} names no image")
        return [(self.image_folder, name) for name in names]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> ImageSample:
        """An image, or the next one that can be read.

        Raises:
            DataError: Too many are broken.
        """
        for step in range(len(self)):
            candidate = (index + step) % len(self)
            try:
                return self._load(candidate)
            except DataError as error:
                self.skips.add(candidate, error)
        raise DataError(f"none of the {len(self)} images can be read, the first is {self.names[0]}")

    def pixels(self, index: int) -> torch.Tensor:
        """(3, H, W) pixels of this very image.

        Raises:
            DataError: It cannot be read.
        """
        return self._load(index).pixels_3HW

    def _load(self, index: int) -> ImageSample:
        path, name = resolve_image(*self._images[index], allow_symlinks=self.allow_symlinks), self.names[index]
        image, direct = read_image(path), self._direct_resize
        return ImageSample(to_pixels(image, self.image_processor, self.aspect_ratio, direct_resize=direct), name)


def collate(samples: Sequence[ImageSample]) -> dict[str, Any]:
    """`pixel_values` (B, 3, H, W) and `sample_ids`."""
    return {
        "pixel_values": torch.stack([sample.pixels_3HW for sample in samples]),
        "sample_ids": [sample.name for sample in samples],
    }
