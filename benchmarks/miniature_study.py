"""The paper's claims checked in small: every row trained by the scripts' own code on the same data, several seeds.

    python benchmarks/miniature_study.py            # the whole table: 3 seeds, under an hour on 2 cores
    python benchmarks/miniature_study.py --quick    # one seed, few rows, few steps

Writes `study.json` (every seed), the figures (SVG and PNG) and `study.md` into `--results`. What is done is kept in
`--output`, so that the same command goes on after an interruption.
"""

import os
import sys
import time
from pathlib import Path

from study import arguments as arguments_of

os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}  # before torch comes in

SCENES = {"train": (2000, 0), "heldout": (250, 0), "probe": (100, 1)}
STEPS = {"pretrain": 120, "finetune": 240, "merge": None, "retune": 100}
QUICK_SCENES = {"train": (1200, 0), "heldout": (80, 0), "probe": (40, 1)}
QUICK_STEPS = {"pretrain": 60, "finetune": 120, "merge": 60, "retune": 30}


def main() -> int:
    """Run the study."""
    arguments = arguments_of.parse(arguments_of.make_parser(__doc__), "study")
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
