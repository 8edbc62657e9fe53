"""Run jobs side by side in forked processes: torch, transformers and DeepSpeed are imported once, before the fork."""

import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tove_lvlm.storage import save_json


@dataclass(frozen=True, kw_only=True)
class Job:
    """Something to do once, whose result is a JSON file."""

    result: Path
    """Where its result goes; a job whose result is there is not done again."""
    work: Callable[[], dict]
    """Runs in a process of its own."""
    needs: tuple[Path, ...] = ()
    """Results of other jobs that must be there first."""

    @property
    def log(self) -> Path:
        """What the job prints."""
        return self.result.with_suffix(".log")


class JobFailed(RuntimeError):
    """A job ended without a result; the message holds the end of its log."""


def run_jobs(jobs: list[Job], workers: int, say: Callable[[str], None]) -> None:
    """Do all jobs, at most `workers` at once, each with one thread.

    Args:
        jobs: In the order of preference.
        workers: Processes at once.
        say: Told of each job that ends.

    Raises:
        JobFailed: A job failed, or can never start; the others are stopped.
    """
    context = multiprocessing.get_context("fork")
    waiting = [job for job in jobs if not job.result.is_file()]
    running: dict[Path, tuple[Job, multiprocessing.Process, float]] = {}
    done = len(jobs) - len(waiting)
    try:
        while waiting or running:
            for job in list(waiting):
                if len(running) < workers and _ready(job):
                    waiting.remove(job)
                    job.log.parent.mkdir(parents=True, exist_ok=True)
                    process = context.Process(target=_child, args=(job,))
                    process.start()
                    running[job.result] = (job, process, time.monotonic())
            for path, (job, process, started) in list(running.items()):
                if process.is_alive():
                    continue
                del running[path]
                if process.exitcode != 0 or not path.is_file():
                    tail = "\n".join(job.log.read_text(errors="replace").splitlines()[-15:])
                    raise JobFailed(f"{job.result.with_suffix('')} failed, see {job.log}:\n{tail}")
                done += 1
                say(f"[{done}/{len(jobs)}] {path.parent.name}/{path.stem}: {time.monotonic() - started:.0f} s")
            if waiting and not running and not any(_ready(job) for job in waiting):
                missing = next(path for path in waiting[0].needs if not path.is_file())
                raise JobFailed(f"{waiting[0].result.with_suffix('')} waits for {missing}, which no job makes")
            time.sleep(0.05)
    finally:
        for _, process, _ in running.values():
            process.terminate()


def read_result(path: Path) -> dict:
    """A finished job's result."""
    return json.loads(path.read_text(encoding="utf-8"))


def _ready(job: Job) -> bool:
    return all(path.is_file() for path in job.needs)


def _child(job: Job) -> None:
    log = open(job.log, "w", buffering=1, encoding="utf-8")
    for stream in (1, 2):  # what C libraries and further processes print
        os.dup2(log.fileno(), stream)
    sys.stdout = sys.stderr = log
    try:
        save_json(job.result, job.work())
    except BaseException:
        traceback.print_exc()
        log.flush()
        os._exit(1)
    log.flush()
    os._exit(0)  # DeepSpeed's and torch's own exits are for whole processes
