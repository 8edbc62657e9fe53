"""A tiny language model with a sentencepiece tokenizer, tiny data and run YAMLs. For the tests of lvlm/ and train/."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import tiny
import torch
import yaml
from PIL import Image

from tove_lvlm.recipes.llava import FINETUNE, PRETRAIN

ROOT = Path(__file__).resolve().parent.parent
WORDS = (
    "is the red blue green box ball on left right of what color shape where yes no a picture shows one two ?".split()
)
STAGES = {stage.name: stage for stage in (PRETRAIN, FINETUNE)}
SCRIPTS = {"pretrain": "pretrain_projector.py", "finetune": "finetune_vicuna.py"}


def make_llm(folder: Path, seed: int = 0, tie: bool = False) -> Path:
    """A LlamaForCausalLM folder of width 32 and 2 layers with its own trained tokenizer."""
    import sentencepiece
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    text = [" ".join(rng.choice(WORDS, 8)) for _ in range(400)] + [
        "USER: ASSISTANT: A chat between a curious user"
    ] * 20
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text),
        model_writer=written,
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        pad_id=-1,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=3,
    )
    (folder / "tokenizer.model").write_bytes(written.getvalue())
    tokenizer = LlamaTokenizer.from_pretrained(folder, pad_token="<unk>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
        tie_word_embeddings=tie,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def make_data(folder: Path, num: int = 24, seed: int = 0, text_only: bool = True) -> Path:
    """`pretrain.json` (captions), `finetune.json` (conversations, every fourth text-only) and `images/`."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    captions, talks = [], []
    for index in range(num):
        name = f"{index}.png"
        pixels = rng.integers(0, 256, (tiny.SIZE, tiny.SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
        words = list(rng.choice(WORDS, int(rng.integers(3, 9))))
        captions.append(
            {
                "id": f"c{index}",
                "image": name,
                "conversations": [
                    {"from": "human", "value": "<image>\nDescribe."},
                    {"from": "gpt", "value": " ".join(words)},
                ],
            }
        )
        with_image = not (text_only and index % 4 == 3)
        talk = {
            "id": f"t{index}",
            "conversations": [
                {"from": "human", "value": ("<image>\n" if with_image else "") + f"what is {words[0]} ?"},
                {"from": "gpt", "value": " ".join(words[1:])},
                {"from": "human", "value": "where ?"},
                {"from": "gpt", "value": words[-1]},
            ],
        }
        talks.append(talk | ({"image": name} if with_image else {}))
    (folder / "pretrain.json").write_text(json.dumps(captions))
    (folder / "finetune.json").write_text(json.dumps(talks))
    return folder


def make_world(folder: Path) -> Path:
    """LLM, tower, data and both YAMLs under one folder; outputs go to `folder/out-*`."""
    make_llm(folder / "llm")
    make_data(folder / "data")
    if not (folder / "tower" / "tower.yaml").exists():
        tiny.make_tower_yaml(folder / "tower")
    for stage in SCRIPTS:
        (folder / f"{stage}.yaml").write_text(yaml.safe_dump(run_block(folder, stage), sort_keys=False))
    return folder


def make_checkpoints(folder: Path, llm: Path, tower_yaml: Path) -> dict[str, Path]:
    """One and the same awake model saved in every form that the scripts write.

    Returns:
        Kind of checkpoint -> folder: `tower`, `stage1`, `adapter`, `merged`.
    """
    from tove_lvlm.checkpoints.adapter import save_adapter
    from tove_lvlm.checkpoints.from_config import build_lvlm
    from tove_lvlm.checkpoints.merged import save_merged
    from tove_lvlm.checkpoints.model_info import make_model_info
    from tove_lvlm.checkpoints.projector import collect_projector
    from tove_lvlm.checkpoints.stage1 import save_stage1
    from tove_lvlm.config.model import MODEL_FILE, LoraConfig, ModelConfig
    from tove_lvlm.lvlm.lora import add_lora, collect_merged
    from tove_lvlm.zero import collect_trainable

    folders = {kind: folder / kind for kind in ("tower", "stage1", "adapter", "merged")}
    block = {"llm": str(llm), "tower": str(tower_yaml)}
    torch.manual_seed(0)
    model, processor = build_lvlm(ModelConfig(**block))
    about = make_model_info(block, model, "square")
    tiny.wake(model.model.vision_tower).save_pretrained(folders["tower"])
    save_stage1(folders["stage1"], collect_projector(model), model, processor)
    (folders["stage1"] / MODEL_FILE).write_text(json.dumps(about))
    model = add_lora(model, LoraConfig(lora_enable=True, lora_r=4, lora_alpha=8, lora_dropout=0.0))
    for part in (model.model.model.multi_modal_projector, model.model.model.vision_tower.tove_fusion):
        part.requires_grad_(True)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    save_adapter(folders["adapter"], model, collect_trainable(model), about)
    processor.save_pretrained(folders["adapter"])
    save_merged(folders["merged"], collect_merged(model), model, processor)
    (folders["merged"] / MODEL_FILE).write_text(json.dumps(about))
    return folders


def run_block(folder: Path, stage: str) -> dict:
    """The YAML of a stage as a dict."""
    run = {
        "model": {"llm": "./llm", "vision_tower": "tove", "tower": "./tower/tower.yaml"},
        "data": {"train": [f"./data/{stage}.json"], "image_folder": "./data/images"},
        "train": {
            "output_dir": str(folder / f"out-{stage}"),
            "deepspeed": None,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "learning_rate": 0.01,
            "mm_projector_lr": 0.005,
            "max_steps": 6,
            "model_max_length": 200,
            "save_steps": 2,
            "save_total_limit": 2,
            "logging_steps": 1,
            "weight_decay": 0.01,
            "seed": 1,
        },
    }
    if stage == "finetune":
        run["lora"] = {"lora_enable": True, "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.1}
        run["train"]["save_merged"] = True
    return run


def environment(threads: int = 1) -> dict[str, str]:
    """Of a training process: offline, one thread, no GPU, the package importable."""
    kept = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return kept | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
        "CUDA_VISIBLE_DEVICES": "",
        "DS_ACCELERATOR": "cpu",
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }


def start(world: Path, stage: str, options: list[str], ranks: int | None = None, log: Path | None = None):
    """Start a training script: by the DeepSpeed launcher with `ranks`, or by plain python when None."""
    script = [str(ROOT / "scripts" / SCRIPTS[stage]), "--cfg-path", str(world / f"{stage}.yaml"), "--options", *options]
    command = [sys.executable, *script]
    if ranks is not None:
        port = 20000 + (os.getpid() * 7 + abs(hash((stage, *options)))) % 20000
        launcher = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_accelerators", str(ranks)]
        command = [*launcher, "--master_port", str(port), *script]
    stream = subprocess.PIPE if log is None else log.open("ab")
    return subprocess.Popen(
        command,
        cwd=world,
        env=environment(),
        stdout=stream,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )


def run(
    world: Path, stage: str, options: list[str], ranks: int | None = None, timeout: float = 1200
) -> tuple[int, str]:
    """(exit code, output) of a finished training script."""
    process = start(world, stage, options, ranks)
    try:
        output, _ = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
    return process.returncode, output


def losses(output_dir: Path) -> dict[int, float]:
    """Step -> loss, as logged."""
    lines = [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines}
