"""Which gates learn to route: two depth experts, each confidently wrong about half of the objects, and every gate.

    python benchmarks/gate_ladder.py                             # 27 rows and 3 seeds, 5 minutes of a core each
    python benchmarks/gate_ladder.py --only within_picture/      # some of them
    python benchmarks/gate_ladder.py --quick                     # one small training

Writes `gate_ladder.json`, its table and figures (SVG and PNG) into `--results`. What is done is kept in `--output`, and
a row and seed that is in the JSON with the same scenes and steps is not trained again, so that the same command goes on
after an interruption, also on another machine.
"""

import dataclasses
import os
import sys

from study import arguments as arguments_of

os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}  # before torch comes in

SCENES = {"train": (2000, 0), "heldout": (400, 0)}
STEPS = {"pretrain": 250, "finetune": 600}
QUICK_SCENES = {"train": (300, 0), "heldout": (40, 0)}
QUICK_STEPS = {"pretrain": 40, "finetune": 40}


def main() -> int:
    """Run what is missing and write the results."""
    parser = arguments_of.make_parser(__doc__)
    parser.add_argument("--only", default="", help="train only rows whose name holds this: `within_picture`, `/token`")
    arguments = arguments_of.parse(parser, "gate_ladder")
    from miniature_study import warm_up, write_world

    warm_up()
    from study import ladder, ladder_figures, plan

    from tove_lvlm.storage import atomic_file, save_json

    ladder.register_experts()
    scenes, steps = (QUICK_SCENES, QUICK_STEPS) if arguments.quick else (SCENES, STEPS)
    rows = [
        dataclasses.replace(row, scenes=scenes["train"][0])
        for row in (ladder.quick_rows() if arguments.quick else ladder.ladder_rows())
    ]
    output, file = arguments.output.resolve(), arguments.results / "gate_ladder.json"
    setting = {"scenes": {split: num for split, (num, _) in scenes.items()}, "steps": steps}
    earlier = plan.earlier_runs(output, file, setting)
    world = write_world(output / "world", scenes)
    jobs = []
    for seed in arguments.seeds:
        wanted = [row for row in rows if arguments.only in row.id]
        missing = [row for row in wanted if str(seed) not in earlier.get(row.id, {})]
        jobs += ladder.ladder_jobs(missing, seed, world, output, steps)

    def write() -> dict:
        runs = plan.collect(output, [row.id for row in rows], arguments.seeds, earlier)
        results = {**ladder.summarise(runs), "runs": runs, "setting": setting}
        save_json(file, results)
        return results

    results = plan.run_and_write(jobs, arguments.workers, write)
    text = ladder.table(results)
    with atomic_file(arguments.results / "gate_ladder.md") as path:
        path.write_text(text, encoding="utf-8")
    ladder_figures.ladder_figure(results, arguments.results)
    model = plan.row_folder(output, 0, ladder_figures.SHOWN) / "model"
    if model.is_dir():
        ladder_figures.gate_pictures(model, world, arguments.results)
    print(text)
    print(f"written: {arguments.results}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
