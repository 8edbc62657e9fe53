"""One timed run in processes of its own: `python benchmarks/speed/run.py RUN.yaml VARIANT`, its figures as JSON.

`stock` is what a LLaVA user has without this package: transformers' own Trainer, `LlavaForConditionalGeneration` with a
plain CLIP, batches padded on the right, peft's LoRA, DeepSpeed. All others go through this package's stage 2. Times are
from a step's end to the next one's, so that reading the rows is in them; the first step is not counted. Under a
launcher every rank writes its own figures to the folder that `--output` names.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

VARIANTS: dict[str, dict[str, Any]] = {
    "stock": {"model.vision_tower": "clip"},
    "clip": {"model.vision_tower": "clip"},
    "tove": {},
    "detached": {},
    "tove, cached": {"train.expert_cache": "cache"},
    "tove, padded": {"train.padding_free": False},
    "tove, all logits": {"train.logits_at_labels": False},
    "tove, float pixels": {"train.pixels_as_bytes": False},
    "tove, none of these": {
        "train.padding_free": False,
        "train.logits_at_labels": False,
        "train.pixels_as_bytes": False,
    },
}
"""Row -> what it changes. A merged tower is a plain CLIP: row `clip`."""


def options_of(variant: str, expert_names: list[str]) -> list[str]:
    """Of a variant, as `a.b=c`; `detached` keeps the first two experts.

    Args:
        variant: Of `VARIANTS`.
        expert_names: The tower's.
    """
    values = dict(VARIANTS[variant])
    if variant == "detached":
        values["model.detached"] = f"[{','.join(expert_names[2:])}]"
    return [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in values.items()]


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cfg_path", help="YAML of the run")
    parser.add_argument("variant", choices=list(VARIANTS))
    parser.add_argument(
        "--own-order", action="store_true", help="the run's own sampler; else rows as the file has them"
    )
    parser.add_argument("--output", type=Path, help="folder for rank-RANK.json; else one line is printed")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # DeepSpeed's launcher gives it
    return parser.parse_args()


def main() -> int:
    """Train, and print or write one object of JSON."""
    arguments = parse_arguments()
    cfg_path, variant = arguments.cfg_path, arguments.variant
    import yaml

    from tove_lvlm.recipes.llava import FINETUNE
    from tove_lvlm.storage import save_json
    from tove_lvlm.train.launch import prepare_environment
    from tove_lvlm.train.stage import load_run

    with open(cfg_path, encoding="utf-8") as file:
        tower = yaml.safe_load(file)["model"]["tower"]
    with open(tower, encoding="utf-8") as file:
        names = [expert["name"] for expert in yaml.safe_load(file)["experts"]]
    config = load_run(FINETUNE, cfg_path, options_of(variant, names))
    prepare_environment(config, arguments.local_rank)
    import torch

    from tove_lvlm.train.metrics import peak_memory_bytes
    from tove_lvlm.train.run import build_trainer, join_ranks

    torch.set_num_threads(1)
    join_ranks(config)
    if variant == "stock":
        trainer, counts = stock_trainer(config)
    else:
        trainer = build_trainer(FINETUNE, config)[0]
        if not arguments.own_order:
            trainer._rank_batches.sampler = InOrder(len(trainer.train_dataset))
        counts = Counts(trainer.data_collator)
        trainer.data_collator = counts
    ends: list[tuple[float, float]] = []
    trainer.add_callback(make_clock(ends))
    trainer.train()
    steps = [
        {"cpu_s": after[0] - before[0], "wall_s": after[1] - before[1], **counted}
        for before, after, counted in zip(ends, ends[1:], counts.batches[1:], strict=False)
    ]
    figures = {"variant": variant, "steps": steps, "peak_memory_gb": peak_memory_bytes() / 1e9}
    if arguments.output is None:
        print(json.dumps(figures))
    else:
        save_json(arguments.output / f"rank-{os.environ['RANK']}.json", figures)
    return 0


class InOrder:
    """The rows as they lie in the file."""

    def __init__(self, num_samples: int):
        self.num_samples = num_samples

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self):
        return iter(range(self.num_samples))

    def set_epoch(self, epoch: int) -> None:
        """The same in every epoch."""


class Counts:
    """A collator that keeps what its batches hold."""

    def __init__(self, collator: Any, for_stock: bool = False):
        self.collator, self.for_stock, self.batches = collator, for_stock, []

    def __call__(self, samples: list) -> dict[str, Any]:
        from tove_lvlm.data.row_layout import model_inputs

        batch = self.collator(samples)
        counted = {"images": batch["num_images"], "tokens": batch["num_tokens"]}
        self.batches.append({**counted, "places": batch["input_ids"].numel()})
        return model_inputs(batch) if self.for_stock else batch


def stock_trainer(config: Any) -> tuple[Any, Counts]:
    """transformers' Trainer on the same rows, padded."""
    import torch
    from torch.utils.data import SequentialSampler
    from transformers import Trainer

    from tove_lvlm.recipes.llava.setup import build
    from tove_lvlm.train.run import training_arguments

    class InOrderTrainer(Trainer):
        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> torch.utils.data.Sampler:
            return SequentialSampler(self.train_dataset)

    arguments = training_arguments(config)
    padded = dataclasses.replace(config.train, padding_free=False, logits_at_labels=False)
    setup = build("finetune", dataclasses.replace(config, train=padded))
    counts = Counts(setup.collator, for_stock=True)
    trainer = InOrderTrainer(model=setup.model, args=arguments, train_dataset=setup.dataset, data_collator=counts)
    return trainer, counts


def make_clock(ends: list[tuple[float, float]]) -> Any:
    """A callback that notes (CPU, wall) seconds at each step's end."""
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            ends.append((time.process_time(), time.perf_counter()))
            return control

    return Clock()


if __name__ == "__main__":
    sys.exit(main())
