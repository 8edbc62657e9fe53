"""A tower on a base that is no CLIP, the whole way in the miniature: trained, half detached, merged, asked.

    python benchmarks/another_base.py             # a SigLIP, one seed: 25 minutes on 2 cores
    python benchmarks/another_base.py --quick     # few scenes and steps: does it run?

Writes `another_base.json` into `--results`: accuracy on held-out questions of the SigLIP alone, of ToVE on it, of ToVE
with the less useful half of its experts detached, and of all experts merged into a stock `SiglipVisionModel`; beside
it, what the SigLIP's own training record says. What is done is kept in `--output`.
"""

import functools
import os
import sys

from study import arguments as arguments_of

os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}  # before torch comes in

SCENES = {"train": (3000, 0), "heldout": (300, 0), "probe": (100, 1)}
STEPS = {"pretrain": 250, "finetune": 600, "merge": 600, "siglip": 1500}
QUICK_SCENES = {"train": (60, 0), "heldout": (8, 0), "probe": (8, 1)}
QUICK_STEPS = {"pretrain": 10, "finetune": 10, "merge": 10, "siglip": 10}
HALF = 2


def main() -> int:
    """Run what is missing and write the results."""
    parser = arguments_of.make_parser(__doc__)
    arguments = arguments_of.parse(parser, "another_base")
    if arguments.results == arguments_of.RESULTS:
        arguments.results = arguments_of.RESULTS.parent
    from miniature_study import warm_up, write_world

    warm_up()
    from study import encoders, jobs, plan, surgery, training
    from study.detachment import detachment
    from study.pool import Job, read_result
    from study.rows import Row, clip_only

    from tove_lvlm.eval.families import chance, read_questions
    from tove_lvlm.storage import save_json

    scenes, steps = (QUICK_SCENES, QUICK_STEPS) if arguments.quick else (SCENES, STEPS)
    output, file = arguments.output.resolve(), arguments.results / "another_base.json"
    world, num, seed = write_world(output / "world", scenes), scenes["train"][0], arguments.seeds[0]
    siglip = {"scenes": num, "encoder": encoders.SIGLIP}
    rows = [clip_only("base", "SigLIP alone", **siglip), Row(id="tove", label="ToVE on it", group="main", **siglip)]
    work = [jobs.encoder_job(output, encoders.SIGLIP, steps), *plan.training_jobs(rows, seed, world, output, steps)]
    tove = plan.row_folder(output, seed, "tove")
    model, merged = tove / plan.TRAINED, tove / "merged"

    def add(name: str, do, *needs: str) -> None:
        work.append(Job(result=tove / f"{name}.json", work=do, needs=tuple(tove / f"{need}.json" for need in needs)))

    def half() -> dict:
        return training.evaluate(model, world, detached=read_result(tove / "ladder.json")["order"][:HALF])

    add("ladder", functools.partial(detachment, model, world), "finetune")
    add("half", half, "ladder")
    images = surgery.images_of(world, num)
    add("merge", lambda: surgery.merge(model, images, world, merged, seed, steps["merge"]), "finetune")
    add("lite", functools.partial(training.evaluate, merged / "lvlm", world), "merge")
    places = {row.id: plan.row_folder(output, seed, row.id) / "score.json" for row in rows}
    places |= {name: tove / f"{name}.json" for name in ("half", "lite")}
    guesses = chance(read_questions(world / "heldout" / "questions.jsonl"))["overall"]["accuracy"]

    def write() -> dict:
        found = {name: read_result(path) for name, path in places.items() if path.is_file()}
        record = encoders.record(output, encoders.SIGLIP)
        setting = {"scenes": {split: number for split, (number, _) in scenes.items()}, "steps": steps, "seed": seed}
        results = {"chance": guesses, "variants": found, "setting": setting}
        results["siglip"] = read_result(record) if record.is_file() else None
        save_json(file, results)
        return results

    results = plan.run_and_write(work, arguments.workers, write)
    for name, score in results["variants"].items():
        print(f"{name:<8} {100 * score['overall']:.1f}")
    print(f"written: {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
