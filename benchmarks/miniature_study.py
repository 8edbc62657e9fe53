"""The paper's claims checked in small: every row trained by the scripts' own code on the same data, several seeds.

    python benchmarks/miniature_study.py            # the whole table: 3 seeds, under an hour on 2 cores
    python benchmarks/miniature_study.py --quick    # one seed, few rows, few steps

Writes `study.json` (every seed), the figures (SVG and PNG) and `study.md` into `--results`. What is done is kept in
`--output`, so that the same command goes on after an interruption.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}  # before torch comes in

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results" / "miniature_study"
SCENES = {"train": (2000, 0), "heldout": (250, 0), "probe": (100, 1)}
STEPS = {"pretrain": 120, "finetune": 240, "merge": None, "retune": 100}
QUICK_SCENES = {"train": (1200, 0), "heldout": (80, 0), "probe": (40, 1)}
QUICK_STEPS = {"pretrain": 60, "finetune": 120, "merge": 60, "retune": 30}


def main() -> int:
    """Run the study."""
    arguments = parse_arguments()
    started = time.time()
    warm_up()
    from study import figures, plan, pool, rows, summary

    from tove_lvlm.eval.families import chance, read_questions
    from tove_lvlm.provenance import commit, hardware
    from tove_lvlm.storage import atomic_file, save_json

    chosen = rows.QUICK if arguments.quick else rows.FULL
    scenes, steps = (QUICK_SCENES, QUICK_STEPS) if arguments.quick else (SCENES, STEPS)
    output = arguments.output.resolve()
    world = write_world(output / "world", scenes)
    ids = [row.id for row in chosen]
    jobs = [job for seed in arguments.seeds for job in plan.training_jobs(chosen, seed, world, output, steps)]
    jobs += [job for seed in arguments.seeds for job in plan.surgery_jobs(ids, seed, world, output, steps)]
    pool.run_jobs(jobs, arguments.workers, lambda line: print(line, flush=True))
    meta = {
        "command": "python benchmarks/miniature_study.py" + (" --quick" if arguments.quick else ""),
        "commit": commit(),
        "hardware": hardware(),
        "scenes": {split: num for split, (num, _) in scenes.items()},
        "steps": steps,
        "minutes": minutes_so_far(output / "minutes.json", (time.time() - started) / 60),
    }
    guesses = chance(read_questions(world / "heldout" / "questions.jsonl"))
    results = summary.collect(output, chosen, arguments.seeds, guesses, meta)
    save_json(arguments.results / "study.json", results)
    text = summary.markdown(results)
    with atomic_file(arguments.results / "study.md") as path:
        path.write_text(text, encoding="utf-8")
    figures.study_figures(results, arguments.results)
    print(text)
    print(f"{meta['minutes']} minutes; written: {arguments.results}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="one seed, few rows, few steps")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 0 1 2, or 0 with --quick")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at once, one thread each")
    parser.add_argument("--output", type=Path, help="data, models and logs; default outputs/study or outputs/quick")
    parser.add_argument("--results", type=Path, help=f"JSON, figures and tables; default {RESULTS.relative_to(ROOT)}")
    arguments = parser.parse_args()
    arguments.seeds = arguments.seeds or ([0] if arguments.quick else [0, 1, 2])
    arguments.output = arguments.output or ROOT / "outputs" / ("study_quick" if arguments.quick else "study")
    arguments.results = arguments.results or (arguments.output / "results" if arguments.quick else RESULTS)
    return arguments


def warm_up() -> None:
    """Import everything heavy once; the jobs are forks of this process. One thread, or a fork would hang."""
    import deepspeed  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import peft  # noqa: F401
    import torch

    import tove_lvlm.inference.chat
    import tove_lvlm.recipes.llava.setup
    import tove_lvlm.train.run  # noqa: F401

    torch.set_num_threads(1)


def write_world(folder: Path, scenes: dict[str, tuple[int, int]]) -> Path:
    """Training, held-out and probing scenes; the probing ones choose what is detached and nothing is scored on them."""
    from study.training import write_fractions

    from tove_lvlm.world.dataset import write_dataset

    for name, (num, seed) in scenes.items():
        if not (folder / name / "dataset.json").is_file():
            write_dataset(folder / name, "train" if name == "train" else "heldout", num, seed=seed)
    write_fractions(folder)
    return folder


def minutes_so_far(path: Path, more: float) -> float:
    """Minutes of all the runs that the results come from, interrupted ones that ended by themselves included."""
    from tove_lvlm.storage import load_json, save_json

    total = round((load_json(path)["minutes"] if path.is_file() else 0.0) + more, 1)
    save_json(path, {"minutes": total})
    return total


if __name__ == "__main__":
    sys.exit(main())
