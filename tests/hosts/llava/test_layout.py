"""`tove export`: transformers' layout to LLaVA's and back with equal logits, and LLaVA's own evaluation on it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers import llava_runs, tiny_llava, tiny_towers
from helpers.tiny_checkpoints import build, save
from helpers.tiny_llava import IMAGE
from helpers.tiny_lvlm import make_llm
from helpers.training import environment
from tove_lvlm.checkpoints import load_model, open_checkpoint
from tove_lvlm.cli import app
from tove_lvlm.config import UserError
from tove_lvlm.hosts.llava.layout import to_llava, to_transformers
from tove_lvlm.inference.chat import Chat
from tove_lvlm.storage import WeightsError, load_tensors, save_tensors

NUM_TOKENS = 16


@pytest.fixture(scope="module")
def llava():
    return tiny_llava.load()


@pytest.fixture(scope="module")
def exported(checkpoints, tmp_path_factory):
    return to_llava(checkpoints["merged"], tmp_path_factory.mktemp("exported") / "llava-tove")


def transformers_logits(model) -> torch.Tensor:
    """(16 + 5, V): a begin, an image, four words."""
    image = model.config.image_token_id
    ids = torch.tensor([[1] + [image] * NUM_TOKENS + [15, 16, 17, 18]])
    with torch.no_grad():
        return model(input_ids=ids, pixel_values=tiny_towers.pixels(1), attention_mask=torch.ones_like(ids)).logits[0]


def llava_logits(model) -> torch.Tensor:
    ids = torch.tensor([[1, IMAGE, 15, 16, 17, 18]])
    with torch.no_grad():
        return model(input_ids=ids, images=tiny_towers.pixels(1), attention_mask=torch.ones_like(ids)).logits[0]


def load_llava(llava, folder):
    """In float32; LLaVA's own loader would round to float16."""
    model = llava.llama.LlavaLlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.get_vision_tower().load_model()
    return model.eval()


@pytest.mark.parametrize("kind", ["merged", "adapter", "stage1"])
def test_equal_logits_both_ways(llava, checkpoints, tmp_path, kind):
    first = open_checkpoint(checkpoints[kind])
    folder = to_llava(checkpoints[kind], tmp_path / "llava-tove")
    there = load_llava(llava, folder)
    back = load_model(to_transformers(folder, tmp_path / "back"))
    assert torch.equal(llava_logits(there), transformers_logits(first.model))
    assert torch.equal(llava_logits(there), transformers_logits(back.model))
    own, got = first.model.state_dict(), back.model.state_dict()
    assert own.keys() == got.keys()
    assert all(torch.equal(own[key], tensor) for key, tensor in got.items())
    assert back.image_aspect_ratio == first.image_aspect_ratio
    texts = ["is the red ball", "<image>\nwhat ?"]
    assert back.processor.tokenizer(texts).input_ids == first.processor.tokenizer(texts).input_ids


def test_the_folder_can_be_moved(llava, exported, tmp_path, monkeypatch):
    moved = tmp_path / "elsewhere" / "llava-tove"
    moved.parent.mkdir()
    import shutil

    shutil.copytree(exported, moved)
    monkeypatch.chdir(tmp_path)
    assert json.loads((moved / "config.json").read_text())["mm_vision_tower"] == "tove:tower"
    model, _ = tiny_llava.reload(llava, moved, None)
    assert model.get_vision_tower().path == moved / "tower"
    assert model.config.mm_hidden_size == model.get_vision_tower().hidden_size


def test_what_llava_trained_comes_to_transformers(llava, tmp_path, tiny_tower_yaml):
    """A checkpoint of LLaVA's own: `<image>` has no row yet, the tower is a YAML elsewhere."""
    llm = make_llm(tmp_path / "llm")
    model = tiny_llava.build(llava, llm, f"tove:{tiny_tower_yaml}").eval()
    folder = tiny_llava.save(llava, model, tmp_path / "llava-tove", "merged")
    back = load_model(to_transformers(folder, tmp_path / "back")).model
    rows = model.config.vocab_size
    assert back.config.image_token_id == rows
    assert torch.equal(transformers_logits(back)[:, :rows], llava_logits(model))


def test_a_plain_clip_model(llava, llm, tiny_tower_yaml, tmp_path):
    model, processor = build(llm, vision_tower="clip", tower=tiny_tower_yaml)
    folder = to_llava(save(tmp_path / "clip", model, processor), tmp_path / "llava-clip")
    there = load_llava(llava, folder)
    assert type(there.get_vision_tower()).__name__ == "CLIPVisionTower"
    assert torch.equal(llava_logits(there), transformers_logits(model))
    back = load_model(to_transformers(folder, tmp_path / "back")).model
    assert torch.equal(transformers_logits(back), transformers_logits(model))


def test_the_command(checkpoints, tmp_path):
    from typer.testing import CliRunner

    arguments = ["export", str(checkpoints["merged"]), "--format", "llava", "--output", str(tmp_path / "llava-x")]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"format": "llava", "output": str(tmp_path / "llava-x")}
    result = CliRunner().invoke(app, ["export", str(checkpoints["merged"]), "--format", "onnx", "--output", "x"])
    assert isinstance(result.exception, UserError)
    assert "`onnx`; valid: merged | llava | transformers" in str(result.exception)


# ---- bad input ----


@pytest.mark.parametrize("name", ["tove-7b", "llava-tove-lora", "llava-mpt"])
def test_a_name_that_would_mislead_llava(checkpoints, tmp_path, name):
    with pytest.raises(UserError, match=f"`{name}`.*choose a name such as `llava-tove-7b`"):
        to_llava(checkpoints["merged"], tmp_path / name)


def test_what_cannot_be_exported(checkpoints, exported, tmp_path):
    with pytest.raises(UserError, match="is a tower alone"):
        to_llava(checkpoints["tower"], tmp_path / "llava-x")
    with pytest.raises(UserError, match="config.json says `model_type: llava`; expected `llava_llama`"):
        to_transformers(checkpoints["merged"], tmp_path / "x")
    assert not (tmp_path / "llava-x").exists()


def test_a_config_that_names_no_vision_tower(exported, tmp_path):
    folder = tmp_path / "llava-tove"
    folder.mkdir()
    for file in exported.glob("*.*"):
        (folder / file.name).symlink_to(file)
    fields = json.loads((exported / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({k: v for k, v in fields.items() if k != "mm_vision_tower"}))
    with pytest.raises(UserError, match="llava-tove/config.json names no vision tower"):
        to_transformers(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_with_missing_or_foreign_keys(exported, tmp_path):
    import shutil

    for edit, message in [
        (lambda t: t.pop("model.mm_projector.tove_fusion.gate.fc1.weight"), r"1 missing \(gate.fc1.weight\)"),
        (lambda t: t.pop("model.mm_projector.0.bias"), r"1 missing \(linear_1.bias\)"),
        (lambda t: t.pop("model.layers.0.mlp.up_proj.weight"), "model.layers.0.mlp.up_proj.weight"),
        (lambda t: t.update({"model.image_newline": torch.zeros(32)}), "model.image_newline"),
        (lambda t: t.update({"extra.weight": torch.zeros(1)}), "`extra.weight` has no place"),
    ]:
        shutil.copytree(exported, tmp_path / "broken")
        tensors = load_tensors(exported)
        edit(tensors)
        save_tensors(tmp_path / "broken" / "model.safetensors", tensors)
        with pytest.raises(WeightsError, match=message):
            to_transformers(tmp_path / "broken", tmp_path / "x")
        shutil.rmtree(tmp_path / "broken")


# ---- `python -m tove_lvlm.hosts.llava` ----


def run_module(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    kept = environment() | {"TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "tove_lvlm.hosts.llava", *arguments]
    return subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, timeout=1200)


@pytest.mark.full
def test_llavas_evaluation_answers_about_images_as_we_do(tmp_path):
    """From scripts/finetune_vicuna.py through `tove export` to `llava.eval.model_vqa_loader`."""
    world = llava_runs.make_world(tmp_path / "world")
    # Until its answers are clear: between tokens that are nearly as likely, half precision decides by the processor.
    code, output = llava_runs.run(world, "finetune", ["train.max_steps=60", "train.save_steps=60"])
    assert code == 0, output
    folder = to_llava(world / "out-finetune", tmp_path / "llava-tove")
    questions = [{"question_id": i, "image": f"{i}.png", "text": f"what is on image {i} ?"} for i in range(3)]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
    done = run_module(
        "llava.eval.model_vqa_loader",
        *("--model-path", str(folder), "--image-folder", str(world / "data" / "images")),
        *("--question-file", "questions.jsonl", "--answers-file", str(tmp_path / "answers.jsonl")),
        *("--conv-mode", "vicuna_v1", "--temperature", "0", "--max_new_tokens", "6"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    if not torch.cuda.is_available():
        assert "LLaVA's `cuda` calls run on the CPU" in done.stderr
    answers = [json.loads(line)["text"] for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    chat = Chat.load(world / "out-finetune", device="cpu")
    chat.model.half()
    images = [world / "data" / "images" / question["image"] for question in questions]
    prompts = [question["text"] for question in questions]
    assert answers == chat.ask_many(images, prompts, max_new_tokens=6, batch_size=1)
    assert all(answers)


def test_the_runner_says_what_is_wrong(tmp_path):
    from tove_lvlm.hosts.llava.__main__ import main

    with pytest.raises(UserError, match="`os` is no module of LLaVA"):
        main(["os"])
    with pytest.raises(UserError, match="has no module `llava.eval.nothing`"):
        main(["llava.eval.nothing"])
    with pytest.raises(UserError, match="training script does not run under transformers 5.*scripts/pretrain"):
        main(["llava.train.train"])
    with pytest.raises(SystemExit) as usage:
        main([])
    assert usage.value.code == 2


def test_cuda_means_the_cpu_only_inside():
    from tove_lvlm.hosts.llava.machine import CudaMeansCpu

    with CudaMeansCpu():
        x = torch.ones(2).cuda().to("cuda").to(device="cuda:0", dtype=torch.float16)
        x = x + torch.zeros(2, device="cuda").to(torch.device("cuda", 0), torch.float16)
        linear = torch.nn.Linear(2, 2).cuda().half()
        assert linear(x).device.type == "cpu"
        assert (x.dtype, x.device.type) == (torch.float16, "cpu")
    assert os.environ.get("CUDA_VISIBLE_DEVICES") != "" or not torch.cuda.is_available()
    if not torch.cuda.is_available():
        with pytest.raises((AssertionError, RuntimeError)):
            torch.ones(2).to("cuda")
