"""A training step of stage 2 on paper: FLOPs and bytes counted on the meta device, divided by assumed speeds.

Nothing here was measured. Not in it: latency, the optimizer's own time, loading, what a kernel loses on few tokens.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speed.balance import Dealt
from tove_lvlm.storage import load_json

BF16_BYTES = 2


@dataclass(frozen=True)
class Counted:
    """Of a project's stage 2, for a forward pass."""

    frozen_tower_flops: float
    """An image through CLIP and the experts."""
    trained_image_flops: float
    """An image through `tove_fusion` and the projector."""
    llm_token_flops: float
    """A token through the frozen weights of the language model, its output layer included."""
    lora_token_flops: float
    attention_flops: float
    """For a row of T tokens: times T squared."""
    image_tokens: int
    trained_parameters: int
    gathered_parameters: int
    """In tensors that are larger than ZeRO-3 keeps whole on each rank."""


@dataclass(frozen=True)
class Assumed:
    """What is not counted but assumed; each value may be given on the command line."""

    peak_tflops: float = 989.0
    utilisation: float = 0.4
    inside_gb_per_s: float = 450.0
    between_gb_per_s: float = 50.0
    network_share: float = 0.8
    gpus_per_machine: int = 8


SOURCES = {
    "peak_tflops": "10^12 FLOP/s of a GPU, dense bfloat16; NVIDIA's data sheet of the H100 SXM and of the H200",
    "utilisation": "share of the peak that training reaches; usual for dense models of this size, not checked here",
    "inside_gb_per_s": "10^9 bytes/s that a GPU sends inside a machine; NVLink 4: half of the data sheet's 900",
    "between_gb_per_s": "10^9 bytes/s that a machine sends to another; one link of 400 Gbit/s, a modest cluster",
    "network_share": "share of these that a collective of large messages reaches; not checked here",
    "gpus_per_machine": "as in docs/several_machines.md",
}
"""Unit and source of each assumption."""
RULES = (
    "the language model's frozen weights: forward, recomputed forward, gradient of the input: 3 x forward",
    "LoRA: the same and the gradient of its weights: 4 x forward",
    "attention, causal: forward, recomputed forward, twice the forward in the backward pass: 4 x forward",
    "CLIP and experts: forward; tove_fusion and projector: 3 x forward",
    "ZeRO-2: gradients are reduced and new weights gathered, bfloat16, trained parameters only",
    "ZeRO-3: the same, and all weights that are not kept whole are gathered twice, bfloat16",
    "a ring: (R - 1) / R of the bytes leave each rank, as fast as the slowest link; between machines all GPUs of one "
    "share its links and the ring crosses them once",
)


def count(cfg_path: Path, options: Sequence[str] = ()) -> Counted:
    """Sizes of a project's stage 2 at its real size, without weights.

    Args:
        cfg_path: Its `finetune.yaml`.
        options: `a.b=c` strings.
    """
    from tove_lvlm.lvlm.parts import base_model, text_config
    from tove_lvlm.recipes.llava.report import sized_model

    _, image_tokens, model, parts, _ = sized_model(cfg_path, list(options), "finetune")
    flops = {part.name: part.flops or 0 for part in parts}
    language = next(part for part in parts if part.name == "language model")
    text = text_config(base_model(model).config)
    zero3 = load_json(Path(__file__).parents[2] / "projects" / "deepspeed" / "zero3.json")["zero_optimization"]
    kept = zero3["stage3_param_persistence_threshold"]
    trained = ("tove_fusion", "projector")
    return Counted(
        frozen_tower_flops=sum(of for name, of in flops.items() if name not in (*trained, "language model")),
        trained_image_flops=sum(flops.get(name, 0) for name in trained),
        llm_token_flops=flops["language model"] / image_tokens - 2 * language.trainable,
        lora_token_flops=2 * language.trainable,
        attention_flops=2 * text.num_hidden_layers * text.hidden_size,  # two products of 2 T^2 D, half of them masked
        image_tokens=image_tokens,
        trained_parameters=sum(part.trainable for part in parts),
        gathered_parameters=sum(p.numel() for p in model.parameters() if p.numel() > kept),
    )


def step_flops(counted: Counted, dealt: Dealt, padded: bool) -> np.ndarray:
    """(S, R) FLOPs of each rank's share of each step, by `RULES`; a batch of texts has one image of zeros.

    Args:
        counted: The model.
        dealt: The rows.
        padded: Whether the places behind a row's end are computed too.
    """
    tokens_SR = dealt.places_SR if padded else dealt.tokens_SR
    squares_SR = dealt.padded_squares_SR if padded else dealt.squares_SR
    image = counted.frozen_tower_flops + 3 * counted.trained_image_flops
    token = 3 * counted.llm_token_flops + 4 * counted.lora_token_flops
    return np.maximum(dealt.images_SR, 1) * image + tokens_SR * token + 4 * counted.attention_flops * squares_SR


def step_bytes(counted: Counted, zero: int) -> int:
    """Bytes of all collectives of a step before a ring takes its share of them.

    Args:
        counted: The model.
        zero: Stage 2 or 3.
    """
    trained = 2 * counted.trained_parameters * BF16_BYTES
    return trained + (2 * counted.gathered_parameters * BF16_BYTES if zero == 3 else 0)


def estimate(
    counted: Counted, dealt: Dealt, assumed: Assumed, ranks: int, rows: int, zero: int, padded: bool = False
) -> dict[str, Any]:
    """Seconds of a step, steps and images per second, and efficiency: the mean rank's computing without
    padding over the step's time.

    Low and high are where nothing and all of the communication hides behind the computing.

    Args:
        counted: The model.
        dealt: The rows of all ranks.
        assumed: Speeds.
        ranks: R.
        rows: Of a step, all ranks.
        zero: Stage 2 or 3.
        padded: As `step_flops`.
    """
    flops_SR = step_flops(counted, dealt, padded)
    speed = assumed.peak_tflops * 1e12 * assumed.utilisation
    mean, slowest = float(flops_SR.mean()) / speed, float(flops_SR.max(1).mean()) / speed
    useful = float(step_flops(counted, dealt, padded=False).mean()) / speed
    one_machine = ranks <= assumed.gpus_per_machine
    network = (assumed.inside_gb_per_s if one_machine else assumed.between_gb_per_s) * 1e9 * assumed.network_share
    sent = step_bytes(counted, zero) * (ranks - 1) / ranks
    seconds = {"low": slowest + sent / network, "high": max(slowest, sent / network)}
    return {
        "ranks": ranks,
        "zero": zero,
        "padded": padded,
        "rows_per_step": rows,
        "pflops_per_step": round(float(flops_SR.sum(1).mean()) / 1e15, 2),
        "gb_sent_per_rank": round(sent / 1e9, 3),
        "compute_s": round(mean, 4),
        "slowest_over_mean_flops": round(slowest / mean, 4),
        "communication_s": round(sent / network, 4),
        "steps_per_s": {name: round(1 / one, 4) for name, one in seconds.items()},
        "rows_per_s": {name: round(rows / one, 1) for name, one in seconds.items()},
        "images_per_s": {name: round(float(dealt.images_SR.sum(1).mean()) / one, 1) for name, one in seconds.items()},
        "efficiency": {name: round(useful / one, 4) for name, one in seconds.items()},
    }


def written(counted: Counted, assumed: Assumed) -> dict[str, Any]:
    """What the estimates stand on, for the JSON."""
    values = {name: {"value": value, "source": SOURCES[name]} for name, value in asdict(assumed).items()}
    return {"counted": asdict(counted), "assumed": values, "rules": list(RULES)}
