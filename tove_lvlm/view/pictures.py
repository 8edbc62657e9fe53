"""Pictures: which ones are offered as examples, and what an uploaded file must be."""

from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ..config import UserError
from ..data.errors import DataError
from ..data.images import FORMATS, read_image
from ..surgery.probe_data import SUFFIXES

TEMPORARY = "GRADIO_TEMP_DIR"
"""Variable of the environment: where uploads lie, and all else that goes when the page ends."""
MAX_BYTES = 20 << 20
"""Largest file that is taken: 20 MiB."""
MAX_PIXELS = 40_000_000
"""Largest picture that is decoded."""
MOST_EXAMPLES = 24
_HELDOUT = Path("data") / "heldout" / "images"
"""Where `tove demo` puts held-out scenes, beside its models."""


class Example(NamedTuple):
    """A picture that is offered."""

    name: str
    """File name, which stands in the page's address."""
    path: Path


def find_examples(folder: Path | None, models: list[Path]) -> list[Example]:
    """The first pictures of a folder; without one, the held-out scenes that `tove demo` left beside a model.

    Args:
        folder: Given by the user; None looks beside the models.
        models: Folders of models.

    Raises:
        UserError: The folder is absent or has no picture in it.
    """
    if folder is not None:
        found = _pictures_in(folder)
        if not found:
            raise UserError(f"--examples `{folder}` has no pictures in it ({', '.join(sorted(SUFFIXES))})")
        return found
    beside = [model.resolve().parent / _HELDOUT for model in models]
    return next((found for place in beside if place.is_dir() and (found := _pictures_in(place))), [])


def is_picture(path: Path) -> bool:
    """Whether a file is called like a picture."""
    return path.suffix.lower() in SUFFIXES


def check_upload(path: Path, name: str) -> Path:
    """A file that somebody brought, if it is a picture that can be shown to a model.

    Args:
        path: Where it lies.
        name: As its owner calls it.

    Raises:
        DataError: One sentence: too large, of another format, animated, or broken.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise DataError(f"{name} has {size / 2**20:.0f} MiB; a picture may have {MAX_BYTES >> 20} at most")
    try:
        with Image.open(path, formats=FORMATS) as image:
            frames = getattr(image, "n_frames", 1)
            if image.format == "GIF" and frames > 1 or getattr(image, "is_animated", False):
                raise DataError(f"{name} is an animation of {frames} pictures; save one of them as a picture")
    except DataError:
        raise
    except Image.DecompressionBombError as error:  # of twice as many pixels as Pillow decodes
        raise DataError(f"{name} has far more than the {MAX_PIXELS:,} pixels that a picture may have") from error
    except Exception as error:
        raise DataError(f"{name} is no picture that can be read; use one of {', '.join(FORMATS)}") from error
    read_image(path, name=name, max_pixels=MAX_PIXELS, apply_exif=True)
    return path


def _pictures_in(folder: Path) -> list[Example]:
    if not folder.is_dir():
        raise UserError(f"--examples `{folder}` is no folder")
    files = sorted(path for path in folder.resolve().iterdir() if is_picture(path) and path.is_file())
    return [Example(path.name, path) for path in files[:MOST_EXAMPLES]]
