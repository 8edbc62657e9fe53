"""The jobs of the study and what each needs."""

import functools
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tove_lvlm.storage import load_json, save_json

from .pool import Job, read_result, run_jobs
from .rows import BASE, Row

TRAINED = "model"
"""Folder of a row's trained model, in the row's."""
HELDOUT = "heldout"


def row_folder(output: Path, seed: int, row_id: str) -> Path:
    """Where a row of a seed lies."""
    return output / f"seed{seed}" / row_id.replace("/", "-")


def earlier_runs(output: Path, file: Path, setting: Mapping[str, Any]) -> dict[str, dict]:
    """Row -> seed -> result, of an earlier run with the same setting; it may have been on another machine.

    Args:
        output: Folder of models and logs; it says from now on what its runs are of.
        file: JSON of results.
        setting: Scenes and steps.
    """
    return earlier_results(output, file, setting).get("runs", {})


def earlier_results(output: Path, file: Path, setting: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the file of an earlier run with the same setting holds; empty if there is none.

    Args:
        output: As for `earlier_runs`.
        file: The same.
        setting: The same.
    """
    kept = output / "setting.json"
    if not kept.is_file() and any(output.glob("seed*")):
        sys.exit(f"{output} holds runs that do not say of which scenes and steps; name another --output or remove it")
    if kept.is_file() and load_json(kept) != setting:
        sys.exit(f"{output} holds runs of other scenes or steps; name another --output or remove it")
    save_json(kept, dict(setting))
    before = load_json(file) if file.is_file() else {}
    return before if before.get("setting") == setting else {}


def collect(output: Path, row_ids: Sequence[str], seeds: Sequence[int], earlier: Mapping[str, dict]) -> dict:
    """Row -> seed -> what is in its `score.json`, here or in an earlier run."""
    runs: dict[str, dict] = {row_id: dict(by_seed) for row_id, by_seed in earlier.items()}
    for row_id in row_ids:
        for seed in seeds:
            path = row_folder(output, seed, row_id) / "score.json"
            if path.is_file():
                runs.setdefault(row_id, {})[str(seed)] = read_result(path)
    return runs


def run_and_write(jobs: Sequence[Job], workers: int, write: Callable[[], dict]) -> dict:
    """Run jobs and write the results after each, so that an interruption loses none.

    Args:
        jobs: As for `pool.run_jobs`.
        workers: The same.
        write: Writes what there is, and gives it back.

    Returns:
        The results.
    """

    def note(line: str) -> None:
        print(line, flush=True)
        write()

    run_jobs(list(jobs), workers, note)
    return write()


def stage_jobs(
    row: Row,
    seed: int,
    world: Path,
    folder: Path,
    steps: Mapping[str, int],
    settings: Callable[[], Mapping[str, float]] = dict,
    needs: tuple[Path, ...] = (),
) -> list[Job]:
    """A row's stages, one after the other; what the first needs, the second base encoder included.

    Args:
        row: What is trained.
        seed: Of initialisation and data order.
        world: The data.
        folder: The row's; the model goes to `TRAINED` in it.
        steps: Optimizer steps of each stage.
        settings: Asked when a stage begins for `rate` and `budget`, multiples of learning rates and steps.
        needs: What must be there before the first stage begins.
    """
    from . import encoders, training

    def work(stage: str) -> dict:
        return training.train(stage, row, seed, world, folder, steps, **settings())

    if row.encoder:
        needs = (*needs, encoders.record(world.parent, row.encoder))
    jobs: list[Job] = []
    for stage in row.stages:
        jobs.append(Job(result=folder / f"{stage}.json", work=functools.partial(work, stage), needs=needs))
        needs = (jobs[-1].result,)
    return jobs


def score_job(row: Row, folder: Path, world: Path, split: str, result: Path, trained: Job) -> Job:
    """The score of a row's model: questions, or captions of a base model.

    Args:
        row: What was trained.
        folder: The row's, with the model.
        world: The data.
        split: `heldout`, or what something is chosen on.
        result: Where the score goes.
        trained: The row's last stage.
    """
    from . import captions, training

    evaluate = captions.evaluate if row.stages == BASE else training.evaluate
    work = functools.partial(evaluate, folder / TRAINED, world, split)
    return Job(result=result, work=work, needs=(trained.result,))


def training_jobs(rows: Sequence[Row], seed: int, world: Path, output: Path, steps: Mapping[str, int]) -> list[Job]:
    """The stages of each row and its score on held-out scenes."""
    jobs = []
    for row in rows:
        folder = row_folder(output, seed, row.id)
        stages = stage_jobs(row, seed, world, folder, steps)
        jobs += [*stages, score_job(row, folder, world, HELDOUT, folder / "score.json", stages[-1])]
    return jobs


def only_needed(jobs: Sequence[Job], wanted: Collection[Path]) -> list[Job]:
    """The jobs that some results still need, in their order: what a result that is there was made of is not made again.

    Args:
        jobs: Every job there is.
        wanted: Results.
    """
    by_result = {job.result: job for job in jobs}
    needed: set[Path] = set()
    waiting = [path for path in wanted if not path.is_file()]
    while waiting:
        path = waiting.pop()
        if path not in needed and path in by_result:
            needed.add(path)
            waiting += [other for other in by_result[path].needs if not other.is_file()]
    return [job for job in jobs if job.result in needed]
