"""The jobs of the study and what each needs."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tove_lvlm.storage import load_json, save_json

from .pool import Job, read_result, run_jobs
from .rows import Row

HALF = 2


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
    kept = output / "setting.json"
    if kept.is_file() and load_json(kept) != setting:
        sys.exit(f"{output} holds runs of other scenes or steps; name another --output or remove it")
    save_json(kept, dict(setting))
    before = load_json(file) if file.is_file() else {}
    return before.get("runs", {}) if before.get("setting") == setting else {}


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


def training_jobs(rows: Sequence[Row], seed: int, world: Path, output: Path, steps: Mapping[str, int]) -> list[Job]:
    """Stage 1, stage 2 and the held-out questions of each row."""
    from . import training

    jobs = []
    for row in rows:
        folder = row_folder(output, seed, row.id)
        stages = [
            Job(
                result=folder / f"{stage}.json",
                work=lambda stage=stage, row=row, folder=folder: training.train(stage, row, seed, world, folder, steps),
                needs=(folder / "pretrain.json",) if stage == "finetune" else (),
            )
            for stage in ("pretrain", "finetune")
        ]
        score = Job(
            result=folder / "score.json",
            work=lambda folder=folder: training.evaluate(folder / "model", world),
            needs=(stages[-1].result,),
        )
        jobs += [*stages, score]
    return jobs


def surgery_jobs(ids: Sequence[str], seed: int, world: Path, output: Path, steps: Mapping[str, int]) -> list[Job]:
    """What is done to trained rows.

    Args:
        ids: Rows that are trained.
        seed: Their seed.
        world: The data.
        output: The study's folder.
        steps: `merge` and `retune`.
    """
    from . import surgery, training

    tove, clip = row_folder(output, seed, "tove"), row_folder(output, seed, "clip")
    jobs = []
    for row_id in ("tove", "no_dropout"):
        if row_id in ids:
            folder = row_folder(output, seed, row_id)
            jobs.append(
                Job(
                    result=folder / "ladder.json",
                    work=lambda folder=folder: surgery.detach_ladder(folder / "model", world),
                    needs=(folder / "finetune.json",),
                )
            )

    def half() -> dict:
        gone = read_result(tove / "ladder.json")["order"][:HALF]
        return training.evaluate(tove / "model", world, detached=gone)

    jobs.append(Job(result=tove / "half.json", work=half, needs=(tove / "ladder.json",)))
    merged = tove / "merged"
    jobs.append(
        Job(
            result=tove / "merge.json",
            work=lambda: surgery.merge(tove / "model", world, merged, seed, steps["merge"]),
            needs=(tove / "finetune.json",),
        )
    )
    jobs.append(
        Job(
            result=tove / "lite.json",
            work=lambda: training.evaluate(merged / "lvlm", world),
            needs=(tove / "merge.json",),
        )
    )
    apart = clip / "parts"
    jobs.append(
        Job(
            result=clip / "parts.json",
            work=lambda: surgery.take_apart(clip / "model", apart),
            needs=(clip / "finetune.json",),
        )
    )
    for folder, parts, name, needed in (
        (tove, merged, "lite_tuned", tove / "merge.json"),
        (clip, apart, "tuned", clip / "parts.json"),
    ):
        model = folder / name
        tuning = Job(
            result=folder / f"{name}_training.json",
            work=lambda parts=parts, model=model: surgery.retune(parts, world, model, seed, steps["retune"]),
            needs=(needed,),
        )
        jobs.append(tuning)
        jobs.append(
            Job(
                result=folder / f"{name}.json",
                work=lambda model=model: training.evaluate(model, world),
                needs=(tuning.result,),
            )
        )
    return jobs
