"""The engine: a model's answers to a benchmark's questions, in batches, as they come.

Questions about one picture come together, and what the model makes of it is made once (`inference.plan`). The next
batch's pictures are read while the model is at work on this one. Pictures are not turned by their EXIF tag, as
in LLaVA's own evaluation.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..checkpoints import LoadedCheckpoint
from ..data.errors import DataError
from ..data.images import resolve_image
from ..inference import Responder, responder_of
from ..inference.batching import DecodingConfig, PixelReader
from ..inference.plan import Window, plan
from ..inference.ranking import RankingConfig
from ..inference.shared import KEEP_BYTES, Pixels, SharedPicture
from .io.items import Item
from .io.problems import Problems


class Prediction(NamedTuple):
    """A model's answer."""

    item: Item
    text: str
    """Of a ranked question, the likeliest of its choices or of the candidates."""
    metadata: Mapping[str, Any] = {}
    """Of a question with choices, `Responder.log_likelihoods`: choice -> value; of one that is ranked among candidates,
    the likeliest one's."""


class _Batch(NamedTuple):
    items: list[Item]
    pixels: list[Pixels | None]
    """None for a question about no image."""
    broken: list[tuple[str, str]]
    """Question id and reason, for images that cannot be read."""


def answers(
    loaded: LoadedCheckpoint,
    items: Sequence[Item],
    images: Path,
    decoding: DecodingConfig,
    batch_size: int,
    problems: Problems,
    ranking: RankingConfig | None = None,
    keep_bytes: int = KEEP_BYTES,
) -> Iterator[Prediction]:
    """Ask a model; each batch's answers come as soon as they are there, those with the longest prompt first.

    Args:
        loaded: A model that answers, where it is to run.
        items: What to ask. Those with `choices` are ranked by likelihood, all others are answered in words.
        images: The image folder.
        decoding: How words are chosen.
        batch_size: Questions at a time; it changes no answer, up to rounding where two tokens are equally likely.
        problems: An image that is missing or broken, or a question that fills the context, is noted and left out.
        ranking: Candidates out of which open questions are answered, in place of `decoding`.
        keep_bytes: What pictures that wait for their next question may take; 0 keeps nothing from batch to batch.
    """
    responder = responder_of(loaded.model.eval(), loaded.processor)
    items, rows = _encode(responder, items, problems)
    pictures = [item.image or None for item in items]
    windows = plan(pictures, [len(row) for row in rows], batch_size, responder.num_kept(keep_bytes))
    row_of = {item.question_id: row for item, row in zip(items, rows, strict=True)}
    reader = PixelReader(loaded.image_processor, loaded.image_aspect_ratio)

    for batch in _ahead(_reads(windows, items, images, reader)):
        for question_id, reason in batch.broken:
            problems.add(reason, question_id)
        if not batch.items:
            continue
        ranked = bool(batch.items[0].choices)
        if ranked:
            yield from _rank(responder, batch)
            continue
        if ranking is not None:
            best = responder.rank([item.text for item in batch.items], batch.pixels, ranking)
            for item, (text, value) in zip(batch.items, best, strict=True):
                yield Prediction(item, text, {"log_likelihood": value})
            continue
        pixels = [one for one in batch.pixels if one is not None]
        texts = responder.generate([row_of[i.question_id] for i in batch.items], pixels, decoding)
        yield from (Prediction(item, text) for item, text in zip(batch.items, texts, strict=True))


def _encode(responder: Responder, items: Sequence[Item], problems: Problems) -> tuple[list[Item], list[Sequence[int]]]:
    """The questions that the model can be asked, and their prompts' ids."""
    asked: list[Item] = []
    rows: list[Sequence[int]] = []
    for item in items:
        try:
            rows.append(responder.encode_question(item.text, int(bool(item.image))))
        except DataError:
            problems.add("question longer than the context", item.question_id)
            continue
        asked.append(item)
    return asked, rows


def _rank(responder: Responder, batch: _Batch) -> Iterator[Prediction]:
    choices = [item.choices for item in batch.items]
    prompts = [item.text for item in batch.items]
    values = responder.log_likelihoods(prompts, choices, batch.pixels)
    for item, of_item in zip(batch.items, values, strict=True):
        log_p_of_choice = dict(zip(item.choices, of_item, strict=True))
        yield Prediction(
            item, max(log_p_of_choice, key=log_p_of_choice.__getitem__), {"log_likelihoods": log_p_of_choice}
        )


def _reads(
    windows: Sequence[Window], items: Sequence[Item], images: Path, reader: PixelReader
) -> Iterator[Callable[[], _Batch]]:
    """What reads each batch, in order; the pictures that are kept go when the last batch of their window has gone."""
    for window in windows:
        shared: dict[str, SharedPicture] | None = {} if window.keeps else None
        for batch in window.batches:
            yield partial(_read, [items[index] for index in batch], images, reader, shared)


def _read(
    items: Sequence[Item], images: Path, reader: PixelReader, shared: dict[str, SharedPicture] | None = None
) -> _Batch:
    """A batch.

    Args:
        items: Its questions.
        images: The image folder.
        reader: Of pixels.
        shared: Pictures by name that are kept; those of this batch are added. None: none is kept.
    """
    batch = _Batch([], [], [])
    for item in items:
        one: Pixels | None = None if shared is None else shared.get(item.image)
        if item.image and one is None:
            try:
                path = resolve_image(images, item.image, allow_symlinks=True)
            except DataError:
                batch.broken.append((item.question_id, "missing image"))
                continue
            try:
                one = reader(path)
            except DataError:
                batch.broken.append((item.question_id, "unreadable image"))
                continue
            if shared is not None:
                one = shared[item.image] = SharedPicture(one)
        batch.items.append(item)
        batch.pixels.append(one)
    return batch


def _ahead(reads: Iterable[Callable[[], _Batch]]) -> Iterator[_Batch]:
    """What each gives, one batch ahead of the caller."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming: list[Future] = []
        try:
            for read in reads:
                coming.append(pool.submit(read))
                if len(coming) > 1:
                    yield coming.pop(0).result()
            while coming:
                yield coming.pop(0).result()
        finally:
            for future in coming:
                future.cancel()
