"""The base model in the miniature: CLIP-only and ToVE by one objective, the same data, steps and seeds.

    python benchmarks/base_demo.py                     # three seeds, every variant and share of the data
    python benchmarks/base_demo.py --only clip tove detached merged --seeds 0     # some of them
    python benchmarks/base_demo.py --quick             # one seed, few scenes, few steps

Writes `base_demo.json` into `--results`: zero-shot captions of held-out scenes (CIDEr, and what they recall),
statements by likelihood, POPE, questions by family; of CLIP-only, of CLIP with as many trained parameters as ToVE, of
ToVE, of ToVE with half of its experts detached and with all of them merged into one CLIP; of the first two also with
1/100 and 1/10 of the training scenes. What is done is kept in `--output`, and a row and seed that is in the JSON with
the same scenes and steps is not trained again.
"""

import os
import sys

from study import arguments as arguments_of

os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}  # before torch comes in

SCENES, STEPS = {"train": 3000, "heldout": 300, "pope": 100}, {"train": 1000, "merge": 1000}
QUICK_SCENES, QUICK_STEPS = {"train": 60, "heldout": 8, "pope": 4}, {"train": 20, "merge": 10}


def main() -> int:
    """Run what is missing and write the results."""
    parser = arguments_of.make_parser(__doc__)
    parser.add_argument("--only", nargs="+", help="rows, by name; all of them by default")
    arguments = arguments_of.parse(parser, "base_demo")
    if arguments.results == arguments_of.RESULTS:
        arguments.results = arguments_of.RESULTS.parent
    from miniature_study import warm_up

    warm_up()
    from study import base, base_summary, plan

    from tove_lvlm.storage import save_json

    ids = [*(row.id for row in base.ROWS), *base.DERIVED]
    unknown = sorted({*(arguments.only or [])} - {*ids})
    if unknown:
        sys.exit(f"--only names {', '.join(unknown)}; the rows are {', '.join(ids)}")
    scenes, steps = (QUICK_SCENES, QUICK_STEPS) if arguments.quick else (SCENES, STEPS)
    output, file = arguments.output.resolve(), arguments.results / "base_demo.json"
    setting = {"scenes": scenes, "steps": steps}
    earlier = plan.earlier_runs(output, file, setting)
    world = base.write_world(output / "world", scenes)
    jobs = []
    for seed in arguments.seeds:
        missing = [row for row in arguments.only or ids if str(seed) not in earlier.get(row, {})]
        jobs += base.base_jobs(missing, seed, world, output, steps, scenes["train"])

    def write() -> dict:
        runs = plan.collect(output, ids, arguments.seeds, earlier)
        results = {**base_summary.summarise(runs), "runs": runs, "setting": setting}
        save_json(file, results)
        return results

    print(base_summary.table(plan.run_and_write(jobs, arguments.workers, write)))
    print(f"written: {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
