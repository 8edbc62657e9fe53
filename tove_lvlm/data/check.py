"""A training data set looked through before a run of hours: what would be refused, skipped or cut, and what is double.

The rules are those of training: texts as in `ToVEDataset` and `TextDataset`, images by `read_image`.
"""

import functools
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..config import UserError
from .conversations import V1, encode
from .dataset import check_context, check_conversation
from .errors import DataError
from .images import read_image, resolve_image
from .records import Record, RecordImage, Records
from .text_dataset import check_texts
from .text_sources import SOURCES

DEFAULT_WORKERS = min(8, os.cpu_count() or 1)
_AHEAD = 1024
"""Samples that are handed to the workers at a time."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What texts are measured with: without it lengths are in words."""

    tokenizer: Any
    num_image_tokens: int
    """Tokens that an image takes."""
    max_length: int
    """The context; longer samples lose their end."""


@dataclass(kw_only=True)
class DataReport:
    """What was found."""

    num_samples: int = 0
    num_with_image: int = 0
    num_text_only: int = 0
    num_rounds: int = 0
    """Questions with their answers; a caption is one."""
    num_images: int = 0
    """Different ones."""
    broken: list[DataError] = field(default_factory=list)
    """A sample each, of what training refuses or skips."""
    same_id: dict[str, int] = field(default_factory=dict)
    """Ids that several samples of a file have -> how many."""
    num_repeated: int = 0
    """Samples whose image and conversation another one has too, the first of each not counted."""
    lengths: dict[str, float] = field(default_factory=dict)
    """`median`, `p95` and `max` in words; with a Context in tokens, an image's included, and `cut`, the samples cut."""
    image_sizes: dict[str, int] = field(default_factory=dict)
    """Shorter side in pixels: `min`, `median`; `max` is of the longer side."""
    num_transparent: int = 0
    """Images of which some is transparent."""

    @property
    def reasons(self) -> list[tuple[str, int, DataError]]:
        """(kind of reason, how many, the first of them), the most frequent first."""
        kinds: dict[str, list[DataError]] = {}
        for error in self.broken:
            kinds.setdefault(_kind(error.reason), []).append(error)
        return sorted(((kind, len(errors), errors[0]) for kind, errors in kinds.items()), key=lambda row: -row[1])


def check_data(
    files: Sequence[str | Path],
    *,
    image_folder: str | Path | None = None,
    source_format: str = "llava",
    template: str = V1,
    context: Context | None = None,
    decode: bool = True,
    allow_symlinks: bool = False,
    workers: int = DEFAULT_WORKERS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> DataReport:
    """Look through data files and all their images.

    Args:
        files: As `data.train` names them, or of a source of the base model.
        image_folder: Folder of all image paths; none for text alone and for shards.
        source_format: A name of `text_sources.SOURCES`; all but `llava` are of the base model.
        template: Conversation of the stage, see `ToVEDataset`.
        context: For lengths in tokens, and samples that the context cuts.
        decode: Also decode each image; else it need only be there.
        allow_symlinks: As in training.
        workers: Threads.
        progress: Called with samples done and all.

    Raises:
        UserError: A file cannot be read as a whole, or there is no such format, folder or file.
    """
    if source_format not in SOURCES:
        raise UserError(f"format `{source_format}` is unknown; expected one of {', '.join(SOURCES)}")
    if image_folder is not None and not Path(image_folder).is_dir():
        raise UserError(f"--image-folder {image_folder} is not a folder")
    source, report = SOURCES[source_format], DataReport()
    conversation = functools.partial(check_conversation, template=template)
    check: Callable[[Record], Any] = conversation if source_format == "llava" else check_texts
    try:
        records = Records.load([*files], check, report.broken.append, source.convert, source.reader)
    except FileNotFoundError as error:
        raise UserError(str(error)) from error
    report.num_samples = len(records) + len(report.broken)
    report.num_with_image = int(records.has_image.sum())
    report.num_text_only = len(records) - report.num_with_image
    report.num_rounds = sum(len(record.conversation) // 2 for record in _all(records))
    _find_doubles(records, report)
    images = _Images(image_folder, allow_symlinks, decode)
    tokens = []
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(records), _AHEAD):
            chunk = [records[index] for index in range(start, min(start + _AHEAD, len(records)))]
            for found in pool.map(lambda record: _look(record, images, template, context), chunk):
                report.broken += [found] if isinstance(found, DataError) else []
                tokens += [found] if isinstance(found, int) else []
            progress(min(start + _AHEAD, len(records)), len(records))
    report.num_images = len(images.done)
    opened = [image for image in images.done.values() if image is not None]
    report.num_transparent = sum(image.transparent for image in opened)
    if opened:
        short = [min(image.size) for image in opened]
        longest = max(max(image.size) for image in opened)
        report.image_sizes = {"min": min(short), "median": int(np.median(short)), "max": longest}
    _measure(report, records, tokens, context)
    return report


def _all(records: Records) -> Iterator[Record]:
    return (records[index] for index in range(len(records)))


class _Image(NamedTuple):
    size: tuple[int, int]
    transparent: bool


class _Images:
    """The images of a data set, each opened once however many samples ask about it."""

    def __init__(self, folder: str | Path | None, allow_symlinks: bool, decode: bool):
        self.folder, self.allow_symlinks, self.decode = folder, allow_symlinks, decode
        self.done: dict[tuple[str, RecordImage], _Image | None] = {}
        """(file that holds it or "", which) -> the image, or None where it was not opened."""
        self._broken: dict[tuple[str, RecordImage], DataError] = {}

    def look(self, record: Record, image: RecordImage) -> None:
        """Raise DataError for one that training cannot use."""
        key = (record.file if image.place is not None else "", image)
        if key in self._broken:
            raise self._broken[key]
        if key in self.done:
            return
        try:
            self.done[key] = self._open(record, image)
        except DataError as error:
            self._broken[key] = error
            raise

    def _open(self, record: Record, image: RecordImage) -> _Image | None:
        if image.place is not None:
            found: Any = BytesIO(record.stored(image)) if self.decode else None
        elif self.folder is None:
            raise DataError("the sample has an image but image_folder is not set")
        else:
            found = resolve_image(self.folder, image.name, allow_symlinks=self.allow_symlinks)
        if not self.decode:
            return None
        picture = read_image(found, name=None if image.place is None else image.name)
        return _Image(picture.size, picture.mode == "RGBA")


def _look(record: Record, images: _Images, template: str, context: Context | None) -> DataError | int | None:
    """What is wrong with a sample; else its tokens, where they are counted."""
    try:
        for image in record.images:
            images.look(record, image)
        if context is None:
            return None
        encoded = encode(context.tokenizer, record.conversation, template, len(record.images))
        check_context(encoded, context.num_image_tokens, context.max_length)
        return len(encoded.input_ids) + (context.num_image_tokens - 1) * len(record.images)
    except DataError as error:
        return error.at(file=record.file, sample_id=record.sample_id)


def _find_doubles(records: Records, report: DataReport) -> None:
    ids: Counter[tuple[str, str]] = Counter()
    contents: Counter[bytes] = Counter()
    for record in _all(records):
        ids[record.file, record.sample_id] += 1
        said = json.dumps([record.images, record.conversation]).encode()
        contents[hashlib.blake2b(said, digest_size=16).digest()] += 1
    report.same_id = {sample_id: count for (_, sample_id), count in ids.items() if count > 1}
    report.num_repeated = contents.total() - len(contents)


def _measure(report: DataReport, records: Records, tokens: list[int], context: Context | None) -> None:
    lengths = np.array(tokens) if context is not None else records.words
    if len(lengths):
        report.lengths = {
            "median": float(np.median(lengths)),
            "p95": float(np.percentile(lengths, 95)),
            "max": int(lengths.max()),
        }
        if context is not None:
            report.lengths["cut"] = int((lengths > context.max_length).sum())


def _kind(reason: str) -> str:
    """A reason without what is of one sample: what stands in quotes, paths and numbers."""
    words = ("..." if word.startswith(("'", '"', "/")) or "/" in word else word for word in reason.split())
    return "".join("N" if character.isdigit() else character for character in " ".join(words)).replace("NN", "N")
