"""webdataset's tar shards as samples, read where they lie: texts when a shard is indexed, images by their place in it.

Files of one sample stand side by side and share a key, the path up to the first dot, as webdataset groups them:

    000000017.jpg    the image (any of IMAGE_SUFFIXES); several (000000017.1.jpg) are a sample's in their order
    000000017.json   a LLaVA sample with `conversations`, or img2dataset's metadata, of which `caption` counts
    000000017.txt    a caption, which goes before the metadata's

Other files are left alone. The index costs a pass over the headers, not over the images; then any sample can be read at
once, so that the order, the share of each rank and worker and the place to go on from are those of any data set.
"""

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .entries import Place, StoredSample, caption_sample
from .errors import DataError

SUFFIX = ".tar"
IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm")

_KEY = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)$")
"""Key and suffix of a file in a shard, as webdataset's `base_plus_ext` has them."""


class _Files(NamedTuple):
    """What a shard holds under one key."""

    key: str
    images: list[tuple[str, Place]]
    texts: dict[str, bytes]


def read_shard(path: Path) -> Iterator[StoredSample | DataError]:
    """The samples of a shard; in place of one that cannot be used, what is wrong with it.

    A shard that was cut short gives the samples before the cut, then an error.

    Args:
        path: The shard, not compressed.

    Raises:
        DataError: It is no tar file.
        FileNotFoundError: It is missing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"shard {path} does not exist")
    broken = "it does not end as a tar file does"
    try:
        with tarfile.open(path, "r:") as tar:  # without compression: an image is read by its place
            held: _Files | None = None
            for key, suffix, member in _members(tar):
                if held is None or key != held.key:
                    if held is not None:
                        yield _sample(held)
                    held = _Files(key, [], {})
                if suffix in IMAGE_SUFFIXES:
                    held.images.append((member.name, (member.offset_data, member.size)))
                elif suffix in ("json", "txt"):
                    held.texts[suffix] = _content(tar, member)
            if _ends_whole(tar):
                yield _sample(held) if held is not None else DataError("the shard holds no sample", file=path)
                return
    except (tarfile.TarError, OSError, EOFError) as error:
        if isinstance(error, tarfile.ReadError) and not _is_tar(path):
            raise DataError(f"not a tar file without compression: {error}", file=path) from error
        broken = str(error)
    yield DataError(f"the shard is cut short or broken ({broken}); copy it anew", file=path)


def read_member(path: str | Path, place: Place) -> bytes:
    """A file in a shard.

    Args:
        path: The shard.
        place: Where it lies.

    Raises:
        DataError: The shard is not there, or has become shorter.
    """
    offset, size = place
    try:
        with open(path, "rb") as shard:
            shard.seek(offset)
            content = shard.read(size)
    except OSError as error:
        raise DataError(f"the shard cannot be read: {error}") from error
    if len(content) != size:
        raise DataError("the shard has become shorter since the run began")
    return content


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """(key, suffix, header) of the files, in their order."""
    for member in tar:
        tar.members = []  # type: ignore[attr-defined]  # else a million headers are kept
        match = _KEY.match(member.name)
        if member.isreg() and match:
            yield match[1], match[2].lower(), member


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    content = b"" if file is None else file.read()
    if len(content) != member.size:
        raise tarfile.ReadError("unexpected end of data")
    return content


def _ends_whole(tar: tarfile.TarFile) -> bool:
    """Whether the archive ends as one that was closed: `tarfile` takes any broken header for an end."""
    fileobj: Any = tar.fileobj
    fileobj.seek(tar.offset)
    return bool(fileobj.read(tarfile.BLOCKSIZE) == tarfile.NUL * tarfile.BLOCKSIZE)


def _is_tar(path: Path) -> bool:
    with open(path, "rb") as file:
        header = file.read(tarfile.BLOCKSIZE)
    try:
        tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _sample(files: _Files) -> StoredSample | DataError:
    """A key's files as a LLaVA sample, or what is wrong with them."""
    try:
        return _llava_sample(files)
    except DataError as error:
        return DataError(error.reason, sample_id=files.key)


def _llava_sample(files: _Files) -> StoredSample:
    names = [name for name, _ in files.images]
    places: list[Place | None] = [place for _, place in files.images]
    sample: dict[str, Any] = {"id": files.key} | ({"image": names} if names else {})
    fields = _json(files.texts["json"]) if "json" in files.texts else {}
    if "conversations" in fields:
        return StoredSample(sample | {"conversations": fields["conversations"]}, places)
    caption = _utf8(files.texts["txt"]) if "txt" in files.texts else fields.get("caption")
    if not names:
        raise DataError("the key has no image" + (" and no text" if not caption else ""))
    if len(names) > 1:
        raise DataError(f"the key has a caption and {len(names)} images ({', '.join(names)}); expected one")
    return StoredSample(caption_sample(files.key, names[0], caption), places)


def _utf8(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"the text is not UTF-8: {error}") from error


def _json(content: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(_utf8(content))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"the JSON is not valid: {error}") from error
    if not isinstance(fields, dict):
        raise DataError(f"the JSON must be an object, got {type(fields).__name__}")
    return fields
