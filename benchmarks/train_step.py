"""Time one training step of each stage at real size with random weights: CLIP-only and ToVE side by side.

    python benchmarks/train_step.py --stage pretrain --cfg-path projects/tove_vicuna_7b/pretrain.yaml
    python benchmarks/train_step.py --stage finetune --cfg-path projects/tove_vicuna_7b/finetune.yaml

One device, bf16, gradient checkpointing as the YAML says, torch's AdamW on what the stage trains. The batch is doubled
until it no longer fits, and the largest that fits is timed. The result goes to benchmarks/results/ with commit and
hardware. On a CPU give a small project: --cfg-path projects/miniature/finetune.yaml --max-batch 4.
"""

import argparse
import dataclasses
import json
import platform
import sys
import time
from pathlib import Path

import torch

from tove_lvlm import config as configs
from tove_lvlm.config.llava import RunConfig
from tove_lvlm.lvlm.meta import build_unloaded
from tove_lvlm.provenance import commit
from tove_lvlm.recipes.llava.setup import set_trainable

RESULTS = Path(__file__).parent / "results"
# Median lengths of a caption of LLaVA-Pretrain and of a conversation of mix665k, in tokens (our estimate).
TEXT_TOKENS = {"pretrain": 32, "finetune": 256}


def main() -> int:
    """Time both variants and write the figures."""
    arguments = parse_arguments()
    run = configs.load(RunConfig, arguments.cfg_path, arguments.options)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = []
    for variant in arguments.variants:
        rows.append(time_variant(run, variant, arguments, device))
        print(json.dumps(rows[-1]), flush=True)
    record = {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit(),
        "hardware": torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU",
        "torch": torch.__version__,
        "stage": arguments.stage,
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    path = arguments.output or RESULTS / f"train_step_{Path(arguments.cfg_path).parent.name}_{arguments.stage}.json"
    Path(path).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"written: {path}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cfg-path", required=True)
    parser.add_argument("--options", nargs="+", default=[])
    parser.add_argument("--stage", choices=("pretrain", "finetune"), required=True)
    parser.add_argument("--variants", nargs="+", default=["clip", "tove"], choices=("clip", "tove"))
    parser.add_argument("--max-batch", type=int, default=256, help="largest micro-batch to try")
    parser.add_argument("--steps", type=int, default=10, help="timed steps, after two untimed ones")
    parser.add_argument("--output", type=Path, default=None)
    return parser.parse_args()


def time_variant(run: RunConfig, variant: str, arguments: argparse.Namespace, device: str) -> dict:
    """Largest batch that fits, then step time, throughput and peak memory at it."""
    torch.manual_seed(0)
    block = dataclasses.replace(run.model, vision_tower=variant)
    model = build_unloaded(block, device=device, dtype=torch.bfloat16 if run.train.bf16 else torch.float32)
    if run.train.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model = set_trainable(model, arguments.stage, run).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    batch, fitting = 1, None
    while batch <= arguments.max_batch:
        try:
            inputs = synthetic_batch(model, batch, TEXT_TOKENS[arguments.stage], device)
            step(model, optimizer, inputs)
            fitting, batch = batch, batch * 2
        except torch.OutOfMemoryError:
            optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            break
    if fitting is None:
        return {"variant": variant, "batch": 0, "out_of_memory": True}
    inputs = synthetic_batch(model, fitting, TEXT_TOKENS[arguments.stage], device)
    for _ in range(2):
        step(model, optimizer, inputs)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(arguments.steps):
        start = time.perf_counter()
        step(model, optimizer, inputs)
        seconds.append(time.perf_counter() - start)
    median = sorted(seconds)[len(seconds) // 2]
    return {
        "variant": variant,
        "batch": fitting,
        "tokens_per_sample": inputs["input_ids"].shape[1],
        "trained_parameters": sum(parameter.numel() for parameter in trained),
        "step_seconds": {"median": median, "min": min(seconds), "max": max(seconds)},
        "images_per_s": fitting / median,
        "tokens_per_s": inputs["input_ids"].numel() / median,
        "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
    }


def synthetic_batch(model: torch.nn.Module, batch: int, text_tokens: int, device: str) -> dict[str, torch.Tensor]:
    """Random pixels and text: `<s>`, the image's tokens, then text whose second half is learnt."""
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = core.config
    visual, size = config.image_seq_length, config.vision_config.image_size
    text_BT = torch.randint(5, config.image_token_id, (batch, text_tokens), device=device)
    image_BT = torch.full((batch, visual), config.image_token_id, device=device)
    ids_BT = torch.cat([text_BT[:, :1], image_BT, text_BT[:, 1:]], dim=1)
    labels_BT = ids_BT.clone()
    labels_BT[:, : visual + text_tokens // 2] = -100
    pixels_B3HW = torch.randn(batch, 3, size, size, device=device, dtype=core.dtype)
    return {
        "input_ids": ids_BT,
        "attention_mask": torch.ones_like(ids_BT),
        "labels": labels_BT,
        "pixel_values": pixels_B3HW,
    }


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, inputs: dict[str, torch.Tensor]) -> None:
    """One optimizer step, finished when it returns."""
    model(**inputs, use_cache=False).loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
