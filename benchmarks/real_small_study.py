"""What real experts are worth to a small real language model on real pictures (projects/real_small).

    python benchmarks/real_small_study.py --only base tove --seeds 0  # as `make real` does
    python benchmarks/real_small_study.py                             # every row, 3 seeds
    python benchmarks/real_small_study.py --steps 2                   # a try, which keeps all it writes below ROOT/try

Needs what `scripts/fetch_real_small.py` and `scripts/make_real_small_data.py` write into `--root`. Writes
`real_small.json` (every seed) and `real_small.md` into `--results` after every row; what is there is not trained again.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1"}

import argparse
import functools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "real_small"


def main() -> int:
    """Do what is missing and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="ROW", help="these rows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at once, one thread each")
    parser.add_argument("--root", type=Path, default=ROOT / "outputs" / "real_small", help="data, cache and models")
    parser.add_argument("--results", type=Path, help=f"JSON and table; default {RESULTS.relative_to(ROOT)}")
    parser.add_argument("--steps", type=int, help="of each stage; for a try")
    arguments = parser.parse_args()
    os.chdir(ROOT)  # the tower's YAML names what was fetched from here

    import transformers  # noqa: F401  before the fork
    from study import pool
    from study.real_small import ROWS
    from study.real_small_surgery import MADE

    from tove_lvlm.storage import atomic_file, load_json, save_json

    labels = {row.id: row.label for row in ROWS} | MADE
    known = list(labels)
    if unknown := sorted({*(arguments.only or [])} - {*known}):
        sys.exit(f"--only names {', '.join(unknown)}; the rows are {', '.join(known)}")
    root = arguments.root.resolve()
    if not (root / "data" / "heldout" / "questions.jsonl").is_file():
        sys.exit(f"{root / 'data'} does not exist; see projects/real_small/README.md for the two commands that make it")
    rows = root / "rows" if arguments.steps is None else root / "try"
    results_folder = arguments.results or (RESULTS if arguments.steps is None else rows)
    file = results_folder / "real_small.json"
    results: dict[str, Any] = load_json(file) if file.is_file() else {}
    jobs = [
        job
        for seed in arguments.seeds
        for row_id in arguments.only or known
        if str(seed) not in results.get(row_id, {})
        for job in row_jobs(row_id, rows, seed, root, arguments.steps)
    ]

    def write() -> None:
        for row_id in known:
            for seed in arguments.seeds:
                found = rows / row_id / f"seed{seed}" / "score.json"
                if found.is_file():
                    stages = {stage: found.with_name(f"{stage}.json") for stage in ("pretrain", "finetune")}
                    losses = {stage: load_json(at)["last_loss"] for stage, at in stages.items() if at.is_file()}
                    results.setdefault(row_id, {})[str(seed)] = load_json(found) | {"losses": losses}
        results_folder.mkdir(parents=True, exist_ok=True)
        save_json(file, results)
        with atomic_file(results_folder / "real_small.md") as path:
            path.write_text(table(results, labels), encoding="utf-8")

    started = time.time()

    def say(line: str) -> None:
        print(line, flush=True)
        write()

    pool.run_jobs(list({job.result: job for job in jobs}.values()), arguments.workers, say)
    write()
    print((results_folder / "real_small.md").read_text(encoding="utf-8"))
    print(f"{time.time() - started:.0f} s")
    return 0


def row_jobs(row_id: str, rows: Path, seed: int, root: Path, steps: int | None) -> list[Any]:
    """Stage 1, stage 2, and the questions, in the row's folder; for what is made of `tove`, that row's too."""
    from study.pool import Job
    from study.real_small import ROWS, evaluate, train
    from study.real_small_surgery import MADE, evaluate_detached, merge

    trained = "tove" if row_id in MADE else row_id
    row = next(row for row in ROWS if row.id == trained)
    folder, own = rows / trained / f"seed{seed}", rows / row_id / f"seed{seed}"
    pretrain, finetune, merged = folder / "pretrain.json", folder / "finetune.json", own / "merge.json"
    jobs = [
        Job(result=pretrain, work=functools.partial(train, row, "pretrain", seed, root, folder, steps)),
        Job(
            result=finetune,
            work=functools.partial(train, row, "finetune", seed, root, folder, steps),
            needs=(pretrain,),
        ),
    ]
    work, needed = functools.partial(evaluate, folder / "model", root), finetune
    if row_id == "detached":
        work = functools.partial(evaluate_detached, folder / "model", root, own)
    if row_id == "merged":
        merging = functools.partial(merge, folder / "model", own / "model", seed, root, steps)
        jobs.append(Job(result=merged, work=merging, needs=(finetune,)))
        work, needed = functools.partial(evaluate, own / "model" / "lvlm", root), merged
    return [*jobs, Job(result=own / "score.json", work=work, needs=(needed,))]


def table(results: dict[str, Any], labels: dict[str, str]) -> str:
    """Markdown: accuracy by the likeliest choice, of each family and row, mean over seeds."""
    done = {row: by_seed for row, by_seed in results.items() if by_seed}
    if not done:
        return "nothing yet\n"
    first = next(iter(next(iter(done.values())).values()))
    families = [*first["likelihood"]["families"], "overall"]
    lines = [
        "Held-out questions, % right: the likeliest choice (in words; in words with another question's picture).",
        "",
        f"| row | seeds | {' | '.join(families)} |",
        f"|{'---|' * (len(families) + 2)}",
        f"| text alone | | {' | '.join(_percent([first['chance']], family) for family in families)} |",
    ]
    for row, by_seed in done.items():
        cells = [_cell(list(by_seed.values()), family) for family in families]
        lines.append(f"| {labels.get(row, row)} | {len(by_seed)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(runs: Sequence[dict], family: str) -> str:
    by_choice, in_words, shuffled = (
        _percent([run[form] for run in runs], family) for form in ("likelihood", "words", "shuffled")
    )
    return f"{by_choice} ({in_words}; {shuffled})"


def _percent(scores: Sequence[dict], family: str) -> str:
    values = [(score["overall"] if family == "overall" else score["families"][family])["accuracy"] for score in scores]
    return f"{100 * sum(values) / len(values):.1f}"


if __name__ == "__main__":
    sys.exit(main())
