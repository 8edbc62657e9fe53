"""Which gates learn to route: two depth experts, each confidently wrong about half of the objects, and every gate.

    python benchmarks/gate_ladder.py                             # 27 rows and 3 seeds, 5 minutes of a core each
    python benchmarks/gate_ladder.py --only within_picture/      # some of them
    python benchmarks/gate_ladder.py --quick                     # one small training

Writes `gate_ladder.json`, its table and figures (SVG and PNG) into `--results`. What is done is kept in `--output`, and
a row and seed that is in the JSON with the same scenes and steps is not trained again, so that the same command goes on
after an interruption, also on another machine.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}  # before torch comes in

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results" / "miniature_study"
SCENES = {"train": (2000, 0), "heldout": (400, 0)}
STEPS = {"pretrain": 250, "finetune": 600}
QUICK_SCENES = {"train": (300, 0), "heldout": (40, 0)}
QUICK_STEPS = {"pretrain": 40, "finetune": 40}


def main() -> int:
    """Run what is missing and write the results."""
    arguments = parse_arguments()
    started = time.time()
    from miniature_study import minutes_so_far, warm_up, write_world

    warm_up()
    from study import ladder, ladder_figures, pool

    from tove_lvlm.storage import atomic_file, load_json, save_json

    ladder.register_experts()
    rows = ladder.quick_rows() if arguments.quick else ladder.ladder_rows()
    scenes, steps = (QUICK_SCENES, QUICK_STEPS) if arguments.quick else (SCENES, STEPS)
    output, file = arguments.output.resolve(), arguments.results / "gate_ladder.json"
    setting = {"scenes": {split: num for split, (num, _) in scenes.items()}, "steps": steps}
    kept = output / "setting.json"
    if kept.is_file() and load_json(kept) != setting:
        sys.exit(f"{output} holds runs of other scenes or steps; name another --output or remove it")
    save_json(kept, setting)
    before = load_json(file) if file.is_file() else {}
    earlier = before.get("runs", {}) if before.get("setting") == setting else {}
    world = write_world(output / "world", scenes)
    jobs = []
    for seed in arguments.seeds:
        wanted = [row for row in rows if arguments.only in row.id]
        missing = [row for row in wanted if str(seed) not in earlier.get(row.id, {})]
        jobs += ladder.ladder_jobs(missing, seed, world, output, steps)

    def write() -> dict:
        runs = ladder.collect(output, rows, arguments.seeds, earlier)
        minutes = minutes_so_far(output / "minutes.json", 0.0)
        results = {**ladder.summarise(runs), "runs": runs, "setting": setting, "minutes": minutes}
        save_json(file, results)
        return results

    def note(line: str) -> None:
        print(line, flush=True)
        write()

    try:
        pool.run_jobs(jobs, arguments.workers, note)
    finally:
        minutes_so_far(output / "minutes.json", (time.time() - started) / 60)
        results = write()
    text = ladder.table(results)
    with atomic_file(arguments.results / "gate_ladder.md") as path:
        path.write_text(text, encoding="utf-8")
    ladder_figures.ladder_figure(results, arguments.results)
    model = output / "seed0" / ladder_figures.SHOWN.replace("/", "-") / "model"
    if model.is_dir():
        ladder_figures.gate_pictures(model, world, arguments.results)
    print(text)
    print(f"{results['minutes']} minutes; written: {arguments.results}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="one seed, one row, few steps")
    parser.add_argument("--only", default="", help="train only rows whose name holds this: `within_picture`, `/token`")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 0 1 2, or 0 with --quick")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at once, one thread each")
    parser.add_argument("--output", type=Path, help="data, models and logs; default outputs/gate_ladder")
    parser.add_argument("--results", type=Path, help=f"JSON, figures and table; default {RESULTS.relative_to(ROOT)}")
    arguments = parser.parse_args()
    arguments.seeds = arguments.seeds or ([0] if arguments.quick else [0, 1, 2])
    name = "gate_ladder_quick" if arguments.quick else "gate_ladder"
    arguments.output = arguments.output or ROOT / "outputs" / name
    arguments.results = arguments.results or (arguments.output / "results" if arguments.quick else RESULTS)
    return arguments


if __name__ == "__main__":
    sys.exit(main())
