"""What is chosen on validation scenes: learning rates, and how many steps a row gets. One seed, the first.

A trial is a row trained with one learning rate and one number of steps, scored on scenes that nothing else uses.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .plan import HELDOUT, TRAINED, row_folder, score_job, stage_jobs
from .pool import Job, read_result
from .rows import Row

BUDGETS = (2 / 9, 4 / 9, 2 / 3, 1.0, 1.5)
"""Multiples of the study's steps at which CLIP-only and ToVE are looked at: when do they stop improving?"""
RATE_BUDGET = 1.0
"""Learning rates are chosen at this budget, where rows are trained longer."""
SEED = 0
VALIDATION = "validation"
_CHOSEN = "chosen"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A row with one learning rate and one budget."""

    row: Row
    rate: float | None
    """Multiple of the YAML's; none: the one that `row.rate_from` has."""
    budget: float

    @property
    def id(self) -> str:
        """Also the folder's name."""
        rate = _CHOSEN if self.rate is None else f"{self.rate:g}"
        return f"{self.row.id}-rate_{rate}-budget_{self.budget:.3g}"

    def folder(self, output: Path) -> Path:
        """Where it lies in a study's folder."""
        return output / "trials" / self.id


def trials(row: Row) -> list[Trial]:
    """What a row's choice is between; one trial alone is no choice."""
    if row.rate_from == row.id:
        return [Trial(row=row, rate=rate, budget=min(RATE_BUDGET, row.budgets[0])) for rate in row.rates]
    return [Trial(row=row, rate=None, budget=budget) for budget in row.budgets]


def budget_trials(row: Row) -> list[Trial]:
    """A row at every budget, with the YAML's learning rate."""
    return [Trial(row=row, rate=1.0, budget=budget) for budget in BUDGETS]


def choice_file(output: Path, row_id: str) -> Path:
    """Where a row's choice is kept."""
    return output / "choices" / f"{row_id}.json"


def needed_choice(output: Path, row: Row) -> Path:
    """The file that must be there before a row is trained."""
    return choice_file(output, row.id if row.has_choice else row.rate_from)


def chosen(output: Path, row: Row) -> dict[str, float]:
    """A row's `rate` and `budget`, both multiples."""
    choice = read_result(needed_choice(output, row))
    return {"rate": choice["rate"], "budget": choice["budget"] if row.has_choice else row.budgets[0]}


def trial_jobs(trial: Trial, world: Path, output: Path, steps: Mapping[str, int]) -> list[Job]:
    """The stages of a trial and its score on validation scenes."""
    folder = trial.folder(output)

    def settings() -> dict[str, float]:
        rate = read_result(choice_file(output, trial.row.rate_from))["rate"] if trial.rate is None else trial.rate
        return {"rate": rate, "budget": trial.budget}

    needs = (choice_file(output, trial.row.rate_from),) if trial.rate is None else ()
    stages = stage_jobs(trial.row, SEED, world, folder, steps, settings, needs)
    return [*stages, score_job(trial.row, folder, world, VALIDATION, folder / f"{VALIDATION}.json", stages[-1])]


def choice_job(row: Row, output: Path) -> Job:
    """Takes the best of a row's trials; needs their scores."""
    of_row = trials(row)

    def choose() -> dict:
        found = {trial.id: read_result(trial.folder(output) / f"{VALIDATION}.json")["overall"] for trial in of_row}
        best = max(of_row, key=lambda trial: found[trial.id])  # the first of equals
        if best.rate is not None:
            taken = Trial(row=row, rate=best.rate, budget=row.budgets[0])
            return {"trial": taken.id, "rate": best.rate, "budget": taken.budget, VALIDATION: found}
        rate = read_result(choice_file(output, row.rate_from))["rate"]
        return {"trial": best.id, "rate": rate, "budget": best.budget, VALIDATION: found}

    needs = tuple(trial.folder(output) / f"{VALIDATION}.json" for trial in of_row)
    return Job(result=choice_file(output, row.id), work=choose, needs=needs)


def row_jobs(row: Row, seed: int, world: Path, output: Path, steps: Mapping[str, int]) -> list[Job]:
    """The stages of a row with what was chosen for it, and its score on held-out scenes.

    The first seed of a row that has a choice is the chosen trial, and is not trained again where that still lies; a
    rate that was chosen at fewer steps has such a trial where the row is looked at with every budget.
    """
    folder = row_folder(output, seed, row.id)
    needs = (needed_choice(output, row),)
    stages = stage_jobs(row, seed, world, folder, steps, functools.partial(chosen, output, row), needs)
    if seed == SEED and row.has_choice:
        stages = [_take_trial(job, row, output, folder) for job in stages]
    return [*stages, score_job(row, folder, world, HELDOUT, folder / "score.json", stages[-1])]


def _take_trial(job: Job, row: Row, output: Path, folder: Path) -> Job:
    def work() -> dict:
        trial = output / "trials" / read_result(choice_file(output, row.id))["trial"]
        done = trial / job.result.name
        if not (done.is_file() and (trial / TRAINED).is_dir()):
            return job.work()
        if not (folder / TRAINED).exists():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / TRAINED).symlink_to(trial / TRAINED, target_is_directory=True)
        return read_result(done)

    return Job(result=job.result, work=work, needs=job.needs)


def wanted_trials(rows: Sequence[Row], curves: Sequence[Row]) -> list[Trial]:
    """Every trial of some rows' choices and of some rows' curves over budgets, each once."""
    every = [trial for row in rows if row.has_choice for trial in trials(row)]
    every += [trial for row in curves for trial in budget_trials(row)]
    return list({trial.id: trial for trial in every}.values())
