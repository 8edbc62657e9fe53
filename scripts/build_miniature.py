"""Train everything that ships in tove_lvlm/assets/miniature, from fixed seeds, in about 40 minutes on 2 cores.

    python scripts/build_miniature.py [--only clip,depth,normals,shapes,edges,domains,vicuna,decoder] [--out DIR]
                                      [--jobs 2]

Every stage runs on one thread and depends on its own seed only; with two jobs the mini Vicuna trains beside the
encoders. A stage's folder is replaced only when the stage has ended well. training_record.json says how each was made.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import multiprocessing
import os
import queue
import re
import sys
import time
import traceback
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, here and in the stages' processes

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tove_lvlm.storage import ASSETS, atomic_dir, load_json, save_json

ENCODERS = ("clip", "depth", "normals", "shapes", "edges", "domains")
STAGES = (*ENCODERS, "vicuna", "decoder")
MINUTES = {
    "clip": 6.5,
    "depth": 4.5,
    "normals": 2.5,
    "shapes": 2.5,
    "edges": 2.5,
    "domains": 5,
    "vicuna": 13,
    "decoder": 28,
}
"""Roughly what each stage takes on one core of 2025; only used to share the stages out."""
RECORD = "training_record.json"


def main(arguments: list[str] | None = None) -> int:
    """Build the stages that the command line names; return the exit status."""
    options = _parse(arguments)
    console, started = Console(), time.monotonic()
    context = multiprocessing.get_context("spawn")
    messages = context.Queue()
    lanes = share_out(options.only, options.jobs)
    workers = [context.Process(target=_work, args=(lane, options.out, messages), daemon=True) for lane in lanes]
    for worker in workers:
        worker.start()
    try:
        failed = _watch(options, workers, messages, console)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
    total = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    minutes = (time.monotonic() - started) / 60
    console.print(
        f"{options.out}: {total / 1e6:.2f} MB, {minutes:.1f} minutes" + (f"; FAILED: {failed}" if failed else "")
    )
    return 1 if failed else 0


def share_out(stages: list[str], jobs: int) -> list[list[str]]:
    """Give each stage, the longest first, to the job that has least to do; a job keeps the usual order."""
    lanes: list[list[str]] = [[] for _ in range(min(jobs, len(stages)))]
    for stage in sorted(stages, key=lambda name: -MINUTES[name]):
        min(lanes, key=lambda lane: sum(MINUTES[name] for name in lane)).append(stage)
    return [sorted(lane, key=STAGES.index) for lane in lanes]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default=",".join(STAGES), help=f"comma-separated, of {','.join(STAGES)}")
    parser.add_argument("--out", type=Path, default=ASSETS / "miniature", help="folder of the results")
    parser.add_argument("--jobs", type=int, default=2, help="stages at a time, one thread each")
    options = parser.parse_args(arguments)
    options.only = [name.strip() for name in options.only.split(",") if name.strip()]
    unknown = sorted(set(options.only) - set(STAGES))
    if unknown or not options.only:
        parser.error(f"--only names {unknown or 'no stage'}; the stages are {', '.join(STAGES)}")
    if options.jobs < 1:
        parser.error(f"--jobs must be at least 1, got {options.jobs}")
    options.only = sorted(set(options.only), key=STAGES.index)
    return options


def _watch(options: argparse.Namespace, workers: list, messages, console: Console) -> list[str]:
    """Show progress, write the record as stages end; return the stages that failed."""
    open_stages, failed = set(options.only), []
    columns = (TextColumn("{task.description:<8}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console) as progress:
        bars = {name: progress.add_task(name, total=None, start=False, note="waiting") for name in options.only}
        while open_stages:
            try:
                kind, stage, content = messages.get(timeout=2)
            except queue.Empty:
                if not any(worker.is_alive() for worker in workers):
                    failed += sorted(open_stages)
                    break
                continue
            if kind == "progress":
                progress.start_task(bars[stage])
                done, steps, note = content
                progress.update(bars[stage], completed=done, total=steps, note=note)
                continue
            open_stages.discard(stage)
            if kind == "done":
                _note(options.out, stage, content)
                progress.update(bars[stage], note="done")
                console.print(f"{stage}: {json.dumps(content.get('heldout', {}))}")
            else:
                failed.append(stage)
                progress.update(bars[stage], note="FAILED")
                console.print(content, markup=False)
    return failed


def _note(out: Path, stage: str, content: dict) -> None:
    """Put a stage into the record beside the others."""
    path = out / RECORD
    record = load_json(path) if path.is_file() else {}
    record[stage] = content
    save_json(path, {name: record[name] for name in STAGES if name in record})


def _work(stages: list[str], out: Path, messages) -> None:
    """A job: its stages one after the other, in a process of its own."""
    import torch
    from miniature import common

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    pool = None
    for stage in stages:
        started = time.monotonic()
        try:
            if stage in ENCODERS and pool is None:
                messages.put(("progress", stage, (0, None, "rendering scenes")))
                pool = common.build_pool()
            messages.put(("progress", stage, (0, None, "starting")))
            with atomic_dir(out / stage) as folder:
                record = _build(stage, pool, folder, messages)
                for path in folder.rglob("*"):
                    path.chmod(0o755 if path.is_dir() else 0o644)
            record |= {"seconds": round(time.monotonic() - started, 1), "made_on": common.hardware()}
            messages.put(("done", stage, record))
        except Exception:
            messages.put(("failed", stage, traceback.format_exc()))


def _build(stage: str, pool, folder: Path, messages) -> dict[str, Any]:
    """One stage into `folder`."""

    def report(name: str, done: int, steps: int, note: str) -> None:
        messages.put(("progress", name, (done, steps, note)))

    if stage in ("vicuna", "decoder"):
        module = importlib.import_module(f"miniature.{stage}")
        _forward_log(stage, report)
        return module.build(folder)
    if stage == "clip":
        from miniature import clip

        return clip.train(pool, folder, report)
    if stage == "shapes":
        from miniature import shapes

        return shapes.train(pool, folder, report)
    if stage == "domains":
        from miniature import domains

        return domains.train(pool, folder, report)
    from miniature import dense

    return dense.train(stage, pool, folder, report)


def _forward_log(stage: str, report) -> None:
    """Turns a language model's log lines into progress."""

    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            match = re.search(r"step (\d+)/(\d+): (.*)", record.getMessage())
            if match:
                report(stage, int(match[1]), int(match[2]), match[3])

    log = logging.getLogger(f"miniature.{stage}")
    log.setLevel(logging.INFO)
    log.addHandler(Forward())


if __name__ == "__main__":
    sys.exit(main())
