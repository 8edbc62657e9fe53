"""A benchmark through a model: from images to score record, on one process or many.

Every rank reads the benchmark and loads the model; rank 0 says what is left to ask; each rank takes its share and
writes its own file (`store`); rank 0 gathers and scores.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as td

from .. import dist, provenance
from ..checkpoints import LoadedCheckpoint, detect, load_model
from ..config import UserError
from ..inference.batching import DecodingConfig
from ..inference.ranking import RANKED_BY, RankingConfig
from ..inference.shared import KEEP_BYTES
from ..storage import fingerprint, run_folder
from ..storage.tensors import DTYPES
from . import generate
from .benchmark import Benchmark
from .io import record
from .io.items import Item
from .io.problems import Problems
from .io.store import ANSWERS, Shard, Store
from .run import write_score
from .tasks.base import LIKELIHOOD

RANKED = {"ranked_by": RANKED_BY}
"""In place of a decoding where choices are ranked."""
_PATIENCE = 1800.0


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How a model is asked."""

    model: Path
    """Folder of a merged model or an adapter."""
    images: Path
    """The benchmark's image folder."""
    output: Path
    """Folder of the run; what is there is gone on from."""
    decoding: DecodingConfig
    ranking: RankingConfig | None = None
    """Answer open questions out of a list of candidates instead."""
    batch_size: int = 16
    keep_bytes: int = KEEP_BYTES
    """What pictures that wait for their next question may take on the device; 0 keeps nothing from batch to batch."""
    device: str = "cpu"
    dtype: str | None = None
    """None keeps the dtype that the checkpoint has."""
    strict: bool = False
    """Refuse whatever is wrong instead of counting it."""
    patience: float = _PATIENCE
    """Seconds that rank 0 waits without a sign of the others."""

    def __post_init__(self):
        if self.dtype is not None and self.dtype not in DTYPES:
            raise UserError(f"--dtype is `{self.dtype}`; valid: {', '.join(DTYPES)}")


def evaluate_model(
    benchmark: Benchmark, settings: EvalConfig, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any] | None:
    """Ask a model, write its answers, score them.

    Args:
        benchmark: What to ask. All ranks call with the same.
        settings: How.
        progress: Called with the number of this rank's questions that are answered, and of all of them.

    Returns:
        The score record, which is also in the run's folder, on rank 0; None on the others.

    Raises:
        UserError: What was given is wrong, the folder holds another run, or a rank has died.
    """
    started = time.monotonic()
    _check_before(benchmark, settings)
    absent = _without_image(benchmark, settings.images)
    if settings.strict:
        benchmark.problems.refuse()
    with dist.entered_by_main(run_folder(settings.output, [settings.model, *benchmark.labels])):
        loaded = load_model(settings.model)
        store = Store(settings.output, benchmark.all_items)
        plan = _agree(lambda: _plan(benchmark, settings, store, loaded, absent))
        loaded.model.to(device=settings.device, dtype=DTYPES.get(settings.dtype or "", loaded.dtype)).eval()
        _ask_share(benchmark, settings, loaded, plan, progress)
        if not dist.is_main():
            return None
        for kind, which in store.wait(dist.world_size(), plan["launch"], settings.patience).items():
            benchmark.problems.add_all(kind, which)
        made_by = _made_by(settings, loaded, plan, started)
        return _finish(benchmark, settings, store, made_by)


def _check_before(benchmark: Benchmark, settings: EvalConfig) -> None:
    """What would otherwise fail after the questions have been asked."""
    if not detect(settings.model).has_language_model:
        raise UserError(f"`{settings.model}` is a tower without a language model: it answers nothing")
    if settings.ranking is not None and benchmark.task.form == LIKELIHOOD:
        raise UserError(f"--candidates answers open questions, and {benchmark.task.name} brings its own choices")
    if not settings.images.is_dir():
        raise UserError(f"image folder `{settings.images}` does not exist")
    if benchmark.is_labelled:
        benchmark.task.check_scorer()


def _without_image(benchmark: Benchmark, images: Path) -> set[str]:
    """Ids of the questions whose image is not there; they are noted."""
    is_there = {name: (images / name).is_file() for name in {item.image for item in benchmark.items if item.image}}
    absent = [item.question_id for item in benchmark.items if item.image and not is_there[item.image]]
    benchmark.problems.add_all("missing image", absent)
    if len(absent) == len(benchmark.items):
        raise UserError(f"none of the {len(is_there)} images is in `{images}` (first: {benchmark.items[0].image})")
    return set(absent)


def _plan(
    benchmark: Benchmark, settings: EvalConfig, store: Store, loaded: LoadedCheckpoint, absent: set[str]
) -> dict[str, Any]:
    """What is left to ask and of whom; rank 0's."""
    model = describe_model(loaded, settings.model.resolve().name)
    dtype = settings.dtype or str(loaded.dtype).removeprefix("torch.")
    identity = {
        "task": benchmark.task.name,
        "prompt": benchmark.task.prompt,
        "labels": {path.name: record.sha256(path) for path in benchmark.labels},
        "model": model["fingerprint"],
        "tower": model["tower"]["fingerprint"],
        "image_aspect_ratio": model["image_aspect_ratio"],
        "decoding": _how(benchmark, settings),
        "dtype": dtype,
    }
    answered = store.prepare(identity)
    question_ids = {item.question_id for item in benchmark.items}
    return {
        "launch": f"{time.time_ns():x}",
        "model": model,
        "dtype": dtype,
        "decoding": identity["decoding"],
        "num_resumed": len(answered & question_ids),
        "todo": [id_ for id_ in (item.question_id for item in benchmark.items) if id_ not in answered | absent],
    }


def _how(benchmark: Benchmark, settings: EvalConfig) -> dict[str, Any]:
    """How answers are found, for the record."""
    if benchmark.task.form == LIKELIHOOD:
        return dict(RANKED)
    return settings.decoding.about() if settings.ranking is None else settings.ranking.about()


def _agree(make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What rank 0 makes, or its error, on all ranks. After it no rank waits for another."""
    try:
        return dist.agree(make)
    finally:
        if td.is_available() and td.is_initialized():
            td.destroy_process_group()


def _ask_share(
    benchmark: Benchmark,
    settings: EvalConfig,
    loaded: LoadedCheckpoint,
    plan: dict[str, Any],
    progress: Callable[[int, int], None],
) -> None:
    rank, world_size = dist.rank(), dist.world_size()
    todo = set(plan["todo"])
    items = share_of([item for item in benchmark.items if item.question_id in todo], rank, world_size)
    problems = Problems()
    progress(0, len(items))
    with Shard(settings.output, rank, plan["launch"], plan["model"]["id"]) as shard:
        predictions = generate.answers(
            loaded,
            items,
            settings.images,
            settings.decoding,
            settings.batch_size,
            problems,
            settings.ranking,
            settings.keep_bytes,
        )
        try:
            for number, (item, text, metadata) in enumerate(predictions, start=1):
                shard.write(item, text, metadata)
                progress(number, len(items))
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"{settings.device} has too little memory for --batch-size {settings.batch_size}; with a smaller one "
                "the same command goes on; --keep-gib says what waiting pictures may take"
            ) from error
        shard.finish(problems)


def share_of(items: Sequence[Item], rank: int, world_size: int) -> list[Item]:
    """A rank's share of what is asked: as many as the others, one more or less, and those about a picture together.

    Args:
        items: The same on all ranks.
        rank: From 0.
        world_size: Number of ranks.
    """
    first = {image: place for place, image in enumerate(dict.fromkeys(item.image for item in items))}
    together = sorted(items, key=lambda item: first[item.image])
    start, end = (len(items) * number // world_size for number in (rank, rank + 1))
    return together[start:end]


def _finish(benchmark: Benchmark, settings: EvalConfig, store: Store, made_by: dict[str, Any]) -> dict[str, Any]:
    rows = store.finish()
    texts = {item.question_id: rows[item.question_id]["text"] for item in benchmark.items if item.question_id in rows}
    answers = {"file": ANSWERS, "sha256": record.sha256(settings.output / ANSWERS), "n": len(texts)}
    return write_score(benchmark, texts, answers, strict=settings.strict, output=settings.output, made_by=made_by)


def describe_model(loaded: LoadedCheckpoint, name: str) -> dict[str, Any]:
    """Name, form and fingerprints of a model and its tower. The fingerprints are of the weights as loaded."""
    tower = loaded.tower
    return {
        "id": name,
        "kind": loaded.kind,
        "fingerprint": fingerprint(loaded.model.state_dict()),
        "image_aspect_ratio": loaded.image_aspect_ratio,
        "transparency": loaded.transparency,
        "tower": {
            "kind": "clip" if tower is None else "tove",
            "attached": [] if tower is None else list(tower.attached_names),
            "fingerprint": fingerprint(loaded.vision_tower.state_dict()),
        },
    }


def _made_by(settings: EvalConfig, loaded: LoadedCheckpoint, plan: dict[str, Any], started: float) -> dict[str, Any]:
    on_gpu = loaded.device.type == "cuda"
    return {
        "model": plan["model"],
        "conversation": loaded.conversation,
        "decoding": plan["decoding"],
        "dtype": plan["dtype"],
        "device": str(loaded.model.device),
        "hardware": provenance.hardware(str(loaded.model.device)),
        "world_size": dist.world_size(),
        "batch_size": settings.batch_size,
        "num_resumed": plan["num_resumed"],
        "seconds": round(time.monotonic() - started, 1),
        "peak_gpu_bytes": torch.cuda.max_memory_allocated(loaded.device) if on_gpu else None,
    }
