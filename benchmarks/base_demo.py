"""The base model in the miniature: CLIP-only and ToVE by one objective, the same data, steps and seeds.

    python benchmarks/base_demo.py            # three seeds
    python benchmarks/base_demo.py --quick    # one seed, few scenes, few steps

Writes `base_demo.json` into `--results`: zero-shot captions of held-out scenes (CIDEr, and what they recall),
statements by likelihood, questions by family; of CLIP-only, ToVE, and ToVE with half of its experts detached. What is
done is kept in `--output`, so that the same command goes on after an interruption.
"""

import os
import statistics
import sys
from pathlib import Path
from typing import Any

from study import arguments as arguments_of

os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}  # before torch comes in

SCENES, STEPS = {"train": 3000, "heldout": 300}, 1000
QUICK_SCENES, QUICK_STEPS = {"train": 60, "heldout": 8}, 20
HALF = ("normals", "edges")
"""Detached in the variant `detached`: those that go first from the miniature's ToVE_Vicuna (docs/results.md)."""


def main() -> int:
    """Run what is missing and write the results."""
    arguments = arguments_of.parse(arguments_of.make_parser(__doc__), "base_demo")
    if arguments.results == arguments_of.RESULTS:
        arguments.results = arguments_of.RESULTS.parent
    import deepspeed  # noqa: F401  the jobs are forks of this process
    import torch
    from study import base, pool

    import tove_lvlm.recipes.encoder_decoder.setup
    import tove_lvlm.train.run  # noqa: F401
    from tove_lvlm.provenance import commit, hardware
    from tove_lvlm.storage import save_json
    from tove_lvlm.world.dataset import write_dataset

    torch.set_num_threads(1)
    scenes, steps = (QUICK_SCENES, QUICK_STEPS) if arguments.quick else (SCENES, STEPS)
    output = arguments.output.resolve()
    world = output / "world"
    for split, num in scenes.items():
        if not (world / split / "dataset.json").is_file():
            write_dataset(world / split, split, num)
    jobs = []
    for seed in arguments.seeds:
        for variant in base.VARIANTS:
            folder = output / f"seed{seed}" / variant
            trained = folder / "trained.json"
            jobs.append(pool.Job(result=trained, work=_training(variant, seed, world, folder / "model", steps)))
            jobs.append(pool.Job(result=folder / "score.json", work=_scoring(folder, world), needs=(trained,)))
        tove = output / f"seed{seed}" / "tove"
        half = output / f"seed{seed}" / "detached" / "score.json"
        jobs.append(pool.Job(result=half, work=_scoring(tove, world, HALF), needs=(tove / "trained.json",)))
    pool.run_jobs(jobs, arguments.workers, lambda line: print(line, flush=True))
    runs = {
        str(seed): {
            variant: pool.read_result(output / f"seed{seed}" / variant / "score.json")
            for variant in ("clip", "tove", "detached")
        }
        for seed in arguments.seeds
    }
    results = summarise(runs) | {
        "command": "python benchmarks/base_demo.py" + (" --quick" if arguments.quick else ""),
        "commit": commit(),
        "hardware": hardware(),
        "scenes": scenes,
        "steps": steps,
        "runs": runs,
    }
    save_json(arguments.results / "base_demo.json", results)
    print(table(results))
    return 0


def _training(variant: str, seed: int, world: Path, folder: Path, steps: int):
    from study import base

    return lambda: base.train(variant, seed, world, folder, steps)


def _scoring(folder: Path, world: Path, detached: tuple[str, ...] = ()):
    from study import base

    return lambda: base.evaluate(folder / "model", world, detached)


def summarise(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, and beside them how far the lowest and the highest lie apart."""
    means: dict[str, Any] = {}
    spread: dict[str, Any] = {}
    for variant in next(iter(runs.values())):
        of_seeds = [_numbers(run[variant]) for run in runs.values()]
        means[variant] = {key: _mean([one[key] for one in of_seeds]) for key in of_seeds[0]}
        spread[variant] = {key: _spread([one[key] for one in of_seeds]) for key in of_seeds[0]}
    return {"seeds": [int(seed) for seed in runs], "variants": means, "spread": spread}


def _numbers(run: dict[str, Any]) -> dict[str, Any]:
    plain = {key: run[key] for key in ("cider", "vsr", "vqa")}
    nested = {"recall": run["recall"], "families": run["families"], "vsr_by_relation": run["vsr_by_relation"]}
    return plain | {f"{name}/{key}": value for name, block in nested.items() for key, value in block.items()}


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.mean(known), 1) if known else None


def _spread(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(max(known) - min(known), 1) if known else None


def table(results: dict[str, Any]) -> str:
    """The means, a line each."""
    variants = results["variants"]
    lines = [f"{'':<28}" + "".join(f"{variant:>12}" for variant in variants)]
    for key in variants["tove"]:
        cells = [variants[variant][key] for variant in variants]
        lines.append(f"{key:<28}" + "".join(f"{'-' if cell is None else f'{cell:.1f}':>12}" for cell in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
