"""Tables with images inside: parquet files, and folders that the library `datasets` saved.

    image           one image, or `images` with a list: `datasets`' Image feature (bytes and a path), bytes, or paths
    conversations   LLaVA's turns
    id              or the row's number

`datasets` keeps a parquet file as Arrow in its cache, which it maps into memory: the index costs a pass over the texts,
and any image can be read at once. Where a row has only a path, the image lies in `data.image_folder`.
"""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..registry import require
from .entries import Place, StoredSample
from .errors import DataError

PARQUET = ".parquet"
_SAVED, _SPLITS = "state.json", "dataset_dict.json"
_IMAGES = ("image", "images")
_BATCH = 256


def is_table(path: Path) -> bool:
    """Whether a path is a parquet file or a folder that `datasets` saved."""
    return path.suffix == PARQUET or (path / _SAVED).is_file()


def tables_in(folder: Path) -> list[Path]:
    """The tables of a folder: itself, or its parquet files, of a hub's data set those of the split `train`.

    Args:
        folder: Exists.

    Raises:
        DataError: It has none, or several splits to choose from.
    """
    if is_table(folder):
        return [folder]
    if (folder / _SPLITS).is_file():
        splits = ", ".join(sorted(path.name for path in folder.iterdir() if is_table(path)))
        raise DataError(f"the folder holds several splits ({splits}); name one of them", file=folder)
    found = sorted(folder.rglob(f"*{PARQUET}"))
    if not found:
        raise DataError("the folder holds no parquet file and was not saved by `datasets`", file=folder)
    return [path for path in found if path.name.startswith("train")] or found


def read_table(path: Path) -> Iterator[StoredSample]:
    """The samples of a table; images are not read.

    Args:
        path: A parquet file, or a folder that `datasets` saved.

    Raises:
        DataError: It cannot be read.
        FileNotFoundError: It is missing.
        ImportError: `datasets` is absent; names the extra.
    """
    if not path.exists():
        raise FileNotFoundError(f"table {path} does not exist")
    table = _open(str(path))
    row = 0
    for batch in table.iter(batch_size=_BATCH):
        texts = batch.drop_columns([name for name in _IMAGES if name in batch.column_names]).to_pylist()
        for number, fields in enumerate(texts):
            yield _sample(fields, batch, number, row)
            row += 1


def read_cell(file: str | Path, row: int, number: int) -> bytes:
    """An image of a table.

    Args:
        file: The table.
        row: Of the sample.
        number: Which of the row's images.

    Raises:
        DataError: The table is not there, or has changed.
    """
    table = _open(str(file))
    if row < len(table):
        batch = table[row : row + 1]
        values = [value for name in _IMAGES for value in _values(batch, name, 0)]
        held = _parts(values[number])[1] if number < len(values) else None
        if held is not None:
            return bytes(held.as_py())
    raise DataError("the table has changed since the run began")


@functools.lru_cache(maxsize=256)
def _open(path: str) -> Any:
    """A table whose rows are Arrow's: nothing is decoded that is not asked for."""
    datasets = require("datasets", extra="tables")
    try:
        opened = datasets.Dataset.from_parquet(path) if path.endswith(PARQUET) else datasets.load_from_disk(path)
    except Exception as error:  # of many libraries, for a file that is cut short or none of theirs
        raise DataError(
            f"cannot be read as a table: {str(error).splitlines()[0] if str(error) else error!r}", file=path
        ) from error
    return opened.with_format("arrow")


def _sample(fields: dict[str, Any], batch: Any, number: int, row: int) -> StoredSample:
    images: dict[str, list[str]] = {}
    places: list[Place | None] = []
    for key in _IMAGES:
        for value in _values(batch, key, number):
            path, held = _parts(value)
            images.setdefault(key, []).append(path or f"image {len(places)} of row {row}")
            places.append(None if held is None else (row, len(places)))
    talk = fields.get("conversations")
    if isinstance(talk, dict) and all(isinstance(value, list) for value in talk.values()):  # `Sequence` of structs
        fields["conversations"] = [dict(zip(talk, turn, strict=False)) for turn in zip(*talk.values(), strict=False)]
    if fields.get("id") is None:
        fields["id"] = f"row {row}"
    return StoredSample(fields | images, places)


def _values(batch: Any, key: str, number: int) -> list[Any]:
    """The Arrow scalars of a row's images, those that are null left out; none without the column."""
    if key not in batch.column_names:
        return []
    value = batch.column(key)[number]
    several = isinstance(value, require("pyarrow", extra="tables").ListScalar)
    return [one for one in (value.values or () if several else [value]) if one.is_valid]


def _parts(value: Any) -> tuple[str | None, Any]:
    """The path of an image, and the Arrow scalar of its bytes, which are not copied; None where there is none."""
    arrow = require("pyarrow", extra="tables")
    if isinstance(value, arrow.StructScalar):  # `datasets`' Image
        path, held = value.get("path"), value.get("bytes")
    elif isinstance(value, arrow.StringScalar):
        path, held = value, None
    else:
        path, held = None, value
    return None if path is None else path.as_py(), held if held is not None and held.is_valid else None
