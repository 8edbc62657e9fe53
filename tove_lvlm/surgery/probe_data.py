"""What a trained model is measured on: conversations, questions, or images alone.

Samples are grouped by their image, because the frozen parts run once for each image however many ask about it.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ..config import UserError
from ..data.conversations import has_answer
from ..data.errors import DataError
from ..data.records import Record, Records
from ..data.skips import allowed_errors
from ..data.turns import IMAGE_TOKEN

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})


@dataclass(frozen=True, kw_only=True)
class ProbeData:
    """Images and what is asked about them. Texts are checked; images are opened when they are needed."""

    source: Path
    """The data file, or the folder of images."""
    image_folder: Path
    images: list[str]
    """Each image once, relative to `image_folder`, in the order of first appearance."""
    samples: list[list[int]]
    """For each image, the places in `records` of what is asked about it; empty for images alone."""
    records: Records | None = None
    """The conversations; None for images alone."""
    bad: dict[str, str] = field(default_factory=dict)
    """Samples left out for their text: place -> reason."""
    num_text_only: int = 0
    """Samples left out because they have no image, so that no expert can matter to them."""

    num_several: int = 0
    """Samples left out because they are about several images: what is measured is grouped by image."""

    def record(self, member: int) -> Record:
        """The conversation of that number in `samples`; a folder of images has none."""
        if self.records is None:
            raise IndexError(f"`{self.source}` holds no conversations")
        return self.records[member]

    def check_bad(self, bad: dict[str, str]) -> None:
        """Stop when too many are broken.

        Args:
            bad: Name -> reason of those met so far, `self.bad` among them.

        Raises:
            DataError: More than `data.skips.allowed_errors`.
        """
        allowed = allowed_errors(sum(map(len, self.samples)) or len(self.images))
        if len(bad) > allowed:
            name, reason = list(bad.items())[-1]
            raise DataError(
                f"{len(bad)} broken samples or images, over the {allowed} allowed; the last, {name}: {reason}",
                file=self.source,
            )

    def fingerprint(self) -> str:
        """SHA-256 over all conversations and over name, size and time of change of every image, as hex."""
        digest = hashlib.sha256(str(self.image_folder.resolve()).encode())
        for image, members in zip(self.images, self.samples, strict=True):
            digest.update(b"\0" + image.encode("utf-8", "surrogatepass"))
            try:
                stat = (self.image_folder / image).stat()
                digest.update(f"\0{stat.st_size}|{stat.st_mtime_ns}".encode())
            except (OSError, ValueError):
                digest.update(b"\0absent")
            for member in members:
                digest.update(repr(self.record(member).conversation).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def read_probe_data(
    data: Path | None = None, image_folder: Path | None = None, images: Path | None = None, limit: int | None = None
) -> ProbeData:
    """Read what to measure on.

    Args:
        data: LLaVA JSON or JSON lines, or questions as JSON lines (`image`, `text`, `answer`).
        image_folder: Folder of the image paths in `data`; left out, `images/` beside the file, or else its own folder.
        images: A folder of images, searched through, instead of `data`: neither loss nor score.
        limit: Only the first so many samples of `data`, or images of `images`.

    Raises:
        UserError: Not one of `data` and `images`, or there is nothing to be had from it.
    """
    if (data is None) == (images is None):
        raise UserError("give either a data file or a folder of images (--data FILE or --images DIR)")
    if limit is not None and limit < 1:
        raise UserError(f"the limit is {limit}; expected at least 1")
    if images is not None:
        if image_folder is not None:
            raise UserError("--image-folder belongs to --data; with --images the folder itself is read")
        return _read_images(Path(images), limit)
    return _read_conversations(Path(cast(Path, data)), image_folder, limit)  # one of the two is given


def _read_images(folder: Path, limit: int | None) -> ProbeData:
    if not folder.is_dir():
        raise UserError(f"folder of images `{folder}` does not exist")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise UserError(f"folder `{folder}` holds no images ({', '.join(sorted(SUFFIXES))})")
    names = [path.relative_to(folder).as_posix() for path in paths[:limit]]
    return ProbeData(source=folder, image_folder=folder, images=names, samples=[[] for _ in names])


def _read_conversations(file: Path, image_folder: Path | None, limit: int | None) -> ProbeData:
    if not file.is_file():
        raise UserError(f"data file `{file}` does not exist")
    if image_folder is None:
        image_folder = file.parent / "images" if (file.parent / "images").is_dir() else file.parent
    if not Path(image_folder).is_dir():
        raise UserError(f"image folder `{image_folder}` does not exist")
    bad: dict[str, str] = {}
    records = Records.load([file], _check, lambda e: bad.update({f"sample {e.sample_id}": e.reason}), _from_question)
    groups: dict[str, list[int]] = {}
    num_text_only = num_several = 0
    for index in range(len(records) if limit is None else min(limit, len(records))):
        about = records[index].images
        num_text_only += not about
        num_several += len(about) > 1
        if len(about) == 1:
            groups.setdefault(about[0].name, []).append(index)
    probe_data = ProbeData(
        source=file,
        image_folder=Path(image_folder),
        images=list(groups),
        samples=list(groups.values()),
        records=records,
        bad=bad,
        num_text_only=num_text_only,
        num_several=num_several,
    )
    probe_data.check_bad(bad)
    if not groups:
        raise DataError("no sample with an image can be used", file=file)
    return probe_data


def _check(record: Record) -> None:
    if not has_answer(record.conversation, len(record.images)):
        raise DataError("the conversation has no answer to judge by")


def _from_question(raw: Any) -> Any:
    """A question as a LLaVA sample; what has conversations stays as it is."""
    if not isinstance(raw, dict) or "conversations" in raw:
        return raw
    text, answer = raw.get("text", raw.get("question")), raw.get("answer")
    if not isinstance(text, str) or not isinstance(answer, str | int | float):
        raise DataError("expected `conversations`, or a question with the texts `text` and `answer`")
    value = text if raw.get("image") is None else f"{IMAGE_TOKEN}\n{text}"
    turns = [{"from": "human", "value": value}, {"from": "gpt", "value": str(answer)}]
    return {"id": raw.get("question_id", raw.get("id")), "image": raw.get("image"), "conversations": turns}
