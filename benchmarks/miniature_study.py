"""The paper's claims checked in small: every row trained out by the scripts' own code, several seeds.

    python benchmarks/miniature_study.py                     # every row, 3 seeds
    python benchmarks/miniature_study.py --only main data    # some groups of rows
    python benchmarks/miniature_study.py --quick             # one seed, few rows, few steps: 5 minutes

Learning rates and numbers of steps are chosen on validation scenes (`study/choices.py`). Writes `study.json` (every
seed), `data_axis.json`, the figures (SVG and PNG) and `study.md` into `--results`, after every row. What is done is
kept in `--output`, and what is in the JSON with the same scenes and steps is not trained again, so that the same
command goes on after an interruption, also on another machine and from the last checkpoint of a row.
"""

import os
import sys
import time
from collections.abc import Collection
from pathlib import Path

from study import arguments as arguments_of

os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}  # before torch comes in

SCENES = {"train": (30_000, 0), "heldout": (400, 0), "probe": (100, 1), "validation": (600, 2)}
STEPS = {"pretrain": 300, "finetune": 1200, "pretrain_base": 1200, "merge": 1000, "retune": 200, "rich_clip": 2700}
QUICK_SCENES = {"train": (1200, 0), "heldout": (80, 0), "probe": (40, 1), "validation": (40, 2)}
QUICK_STEPS = {"pretrain": 60, "finetune": 120, "pretrain_base": 60, "merge": 60, "retune": 30, "rich_clip": 10}


def main() -> int:
    """Run what is missing and write the results."""
    parser = arguments_of.make_parser(__doc__)
    parser.add_argument("--only", nargs="+", help="train only rows of these groups: main data gate control single ...")
    arguments = arguments_of.parse(parser, "study")
    started = time.time()
    warm_up()
    from study import choices, figures, plan, rows, summary, tables
    from study import jobs as study_jobs

    from tove_lvlm.eval.families import chance, read_questions
    from tove_lvlm.storage import atomic_file, save_json

    every, curves = (rows.QUICK, []) if arguments.quick else (rows.FULL, rows.MAIN)
    groups = list(dict.fromkeys(row.group for row in every))
    unknown = sorted({*(arguments.only or [])} - {*groups})
    if unknown:
        sys.exit(f"--only names {', '.join(unknown)}; the groups are {', '.join(groups)}")
    scenes, steps = (QUICK_SCENES, QUICK_STEPS) if arguments.quick else (SCENES, STEPS)
    output, file = arguments.output.resolve(), arguments.results / "study.json"
    setting = {"scenes": {split: num for split, (num, _) in scenes.items()}, "steps": steps}
    trials = choices.wanted_trials(every, curves)
    earlier = plan.earlier_results(output, file, setting)
    known = summary.known_seeds(earlier, arguments.seeds)
    summary.restore(earlier, output, every, trials, known)
    world = write_world(output / "world", scenes, sorted({row.scenes for row in every}), with_statements=True)
    jobs = study_jobs.study_jobs(every, curves, arguments.only or groups, arguments.seeds, world, output, steps)
    guesses = chance(read_questions(world / "heldout" / "questions.jsonl"))
    before = earlier.get("minutes", 0.0)

    def write() -> dict:
        found = summary.collect(output, every, curves, trials, known, guesses)
        minutes = round(before + (time.time() - started) / 60, 1)
        results = {"rich_clip": earlier.get("rich_clip")} | found
        results |= {"setting": setting, "minutes": minutes, "workers": arguments.workers}
        axis = summary.data_axis(results, steps)
        save_json(file, results)
        save_json(arguments.results / "data_axis.json", axis)
        with atomic_file(arguments.results / "study.md") as path:
            path.write_text(tables.markdown(results, axis), encoding="utf-8")
        return results

    results = plan.run_and_write(jobs, arguments.workers, write)
    figures.study_figures(results | {"data_axis": summary.data_axis(results, steps)}, arguments.results)
    print((arguments.results / "study.md").read_text(encoding="utf-8"))
    print(f"{results['minutes']} minutes; written: {arguments.results}")
    return 0


def warm_up() -> None:
    """Import everything heavy once; the jobs are forks of this process. One thread, or a fork would hang."""
    import deepspeed  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import peft  # noqa: F401
    import torch

    import tove_lvlm.inference.chat
    import tove_lvlm.recipes.encoder_decoder.setup
    import tove_lvlm.recipes.llava.setup
    import tove_lvlm.train.run  # noqa: F401

    torch.set_num_threads(1)


def write_world(
    folder: Path,
    scenes: dict[str, tuple[int, int]],
    numbers: Collection[int] | None = None,
    with_statements: bool = False,
) -> Path:
    """Training, held-out, probing and validation scenes, which have nothing in common.

    Args:
        folder: Where.
        scenes: Split -> number and seed.
        numbers: Of training scenes that some row has; none for all of them.
        with_statements: As the base model needs them.
    """
    from study.rows import BASE, VICUNA
    from study.training import write_first_scenes

    from tove_lvlm.world.dataset import write_dataset

    for name, (num, seed) in scenes.items():
        if not (folder / name / "dataset.json").is_file():
            write_dataset(folder / name, "train" if name == "train" else "heldout", num, seed=seed)
    write_first_scenes(folder, numbers or [scenes["train"][0]], BASE if with_statements else VICUNA)
    return folder


if __name__ == "__main__":
    sys.exit(main())
