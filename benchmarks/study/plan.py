"""The jobs of the study and what each needs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from .pool import Job
from .rows import Row

HALF = 2


def row_folder(output: Path, seed: int, row_id: str) -> Path:
    """Where a row of a seed lies."""
    return output / f"seed{seed}" / row_id.replace("/", "-")


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
    from .pool import read_result

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
