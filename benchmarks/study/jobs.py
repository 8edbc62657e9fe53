"""Every job of the study: trials and choices, rows, and what is done to trained rows."""

import functools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from . import encoders, surgery, training
from .choices import budget_trials, choice_job, row_jobs, trial_jobs, trials
from .detachment import detachment
from .plan import TRAINED, only_needed, row_folder
from .pool import Job, read_result
from .rows import Row
from .summary import LADDERS, ladder_files, result_files

HALF = 2


def study_jobs(
    rows: Sequence[Row],
    curves: Sequence[Row],
    groups: Collection[str],
    seeds: Sequence[int],
    world: Path,
    output: Path,
    steps: Mapping[str, int],
) -> list[Job]:
    """What is missing, group after group, in each seed after seed, and in the first row after row.

    Args:
        rows: Every row there is.
        curves: Those that are trained with every budget.
        groups: Whose rows are wanted; `main` brings the curves and what is made of trained rows.
        seeds: Of initialisation and data order.
        world: The data.
        output: The study's folder.
        steps: Of each stage, `merge`, `retune` and `rich_clip`.
    """
    jobs = [encoder_job(output, encoders.RICH_CLIP, steps)]
    wanted: list[Path] = []
    for row in curves:
        for trial in budget_trials(row):
            jobs += trial_jobs(trial, world, output, steps)
            wanted += [jobs[-1].result] if "main" in groups else []
    for group in dict.fromkeys(row.group for row in rows):
        of_group = [row for row in rows if row.group == group]
        for number, seed in enumerate(seeds):
            for row in of_group:
                if number == 0 and row.has_choice:  # and then its first score at once, which the JSON keeps
                    jobs += [job for trial in trials(row) for job in trial_jobs(trial, world, output, steps)]
                    jobs.append(choice_job(row, output))
                jobs += row_jobs(row, seed, world, output, steps)
    by_id = {row.id: row for row in rows}
    for seed in seeds:
        jobs += surgery_jobs(by_id, seed, world, output, steps)
    chosen = {row.id for row in rows if row.group in groups}
    wanted += [path for (row, _), path in result_files(output, rows, seeds).items() if row in chosen]
    if "main" in groups:
        wanted += [path for (row, _), path in result_files(output, rows, seeds).items() if row not in by_id]
    wanted += [path for (row, _), path in ladder_files(output, seeds).items() if row in chosen]
    return only_needed(list({job.result: job for job in jobs}.values()), wanted)


def encoder_job(output: Path, name: str, steps: Mapping[str, int]) -> Job:
    """Trains a further base encoder."""
    return Job(result=encoders.record(output, name), work=functools.partial(encoders.train, output, name, steps[name]))


def surgery_jobs(rows: Mapping[str, Row], seed: int, world: Path, output: Path, steps: Mapping[str, int]) -> list[Job]:
    """What is done to trained rows.

    Args:
        rows: Those that are trained, by id.
        seed: Their seed.
        world: The data.
        output: The study's folder.
        steps: `merge` and `retune`.
    """
    tove, clip = row_folder(output, seed, "tove"), row_folder(output, seed, "clip")
    jobs = []
    for row_id in LADDERS:
        if row_id in rows:
            folder = row_folder(output, seed, row_id)
            jobs.append(
                Job(
                    result=folder / "ladder.json",
                    work=lambda folder=folder: detachment(folder / TRAINED, world),
                    needs=(folder / "finetune.json",),
                )
            )

    def half() -> dict:
        gone = read_result(tove / "ladder.json")["order"][:HALF]
        return training.evaluate(tove / TRAINED, world, detached=gone)

    jobs.append(Job(result=tove / "half.json", work=half, needs=(tove / "ladder.json",)))
    merged, images = tove / "merged", surgery.images_of(world, rows["tove"].scenes)
    jobs.append(
        Job(
            result=tove / "merge.json",
            work=lambda: surgery.merge(tove / TRAINED, images, world, merged, seed, steps["merge"]),
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
            work=lambda: surgery.take_apart(clip / TRAINED, apart),
            needs=(clip / "finetune.json",),
        )
    )
    for row, folder, parts, name, needed in (
        (rows["tove"], tove, merged, "lite_tuned", tove / "merge.json"),
        (rows["clip"], clip, apart, "tuned", clip / "parts.json"),
    ):
        work = functools.partial(surgery.retune, parts, row, world, folder / name, seed, steps["retune"])
        tuning = Job(result=folder / f"{name}_training.json", work=work, needs=(needed,))
        score = functools.partial(training.evaluate, folder / name, world)
        jobs += [tuning, Job(result=folder / f"{name}.json", work=score, needs=(tuning.result,))]
    return jobs
