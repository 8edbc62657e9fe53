"""The real vLLM on a CPU, where `make vllm` has installed it: the full tower is served, and answers as it does here."""

import base64
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import ask_vllm, merge_runs
from helpers.paths import ROOT
from helpers.tiny_families import make_family
from helpers.tiny_towers import wake
from helpers.training import free_port
from tove_lvlm.checkpoints.adapter import save_adapter
from tove_lvlm.checkpoints.from_config import build_lvlm
from tove_lvlm.checkpoints.merged import save_merged
from tove_lvlm.checkpoints.model_info import make_model_info
from tove_lvlm.config.model import LoraConfig, ModelConfig
from tove_lvlm.inference.chat import Chat
from tove_lvlm.inference.llava import LlavaResponder
from tove_lvlm.lvlm.image_processor import as_trained
from tove_lvlm.lvlm.lora import add_lora, collect_merged
from tove_lvlm.lvlm.parts import base_model
from tove_lvlm.sharding import collect_trainable
from tove_lvlm.storage import load_tensors, save_tensors

PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not PYTHON.is_file(), reason="no .venv-vllm with vLLM for CPUs: `make vllm` builds it"),
]
QUESTIONS = ["is the red box left of the ball ?", "what shape ?", "how many red balls are there in the picture ?"]
FAMILIES = {"qwen3": {"head_dim": 32}, "cohere": {"hidden_size": 64}}
"""Those with heads as wide as vLLM's attention on CPUs wants them."""
HALF = "\ufffd"
"""What a character is shown as whose last bytes were not generated; vLLM leaves it out at the end."""
SIZES = [(64, 64), (128, 64), (40, 90)]
"""Square, twice as wide as high, and high."""


@pytest.fixture(scope="module")
def models(tmp_path_factory, pictures) -> dict[str, Path]:
    """The miniature's networks in a model of CLIP alone and in one with ToVE; what is trained is random.

    `qwen3` is ToVE before a language model with a chat template of its own, `tuned` ToVE with LoRA, merged, in whose
    folder the adapter lies, `lite` ToVE merged into one CLIP.
    """
    folder = tmp_path_factory.mktemp("served")
    vicuna = ROOT / "tove_lvlm" / "assets" / "miniature" / "vicuna"
    qwen3, cohere = (make_family(folder / "llm" / name, name, **sizes) for name, sizes in FAMILIES.items())
    kinds = {"clip": ("clip", vicuna), "tove": ("tove", vicuna), "qwen3": ("tove", qwen3), "tuned": ("tove", vicuna)}
    kinds["cohere"] = ("tove", cohere)
    for name, (vision_tower, llm) in kinds.items():
        tower = str(ROOT / "projects" / "miniature" / "tower.yaml")
        torch.manual_seed(0)
        block = ModelConfig(llm=str(llm), vision_tower=vision_tower, tower=tower)
        model, processor = build_lvlm(block)
        if vision_tower == "tove":
            wake(model.model.vision_tower)
        processor.image_processor = as_trained(processor.image_processor, "pad", "white")
        if name == "tuned":
            model = add_lora(model, LoraConfig(lora_r=4, lora_alpha=8))
            for parameter_name, parameter in model.named_parameters():
                if ".lora_B." in parameter_name:
                    torch.nn.init.normal_(parameter, std=0.1)
            info = make_model_info(dataclasses.asdict(block), base_model(model), "pad", "white")
            save_adapter(folder / name / "adapter", model, collect_trainable(model), info)
        save_merged(folder / name, collect_merged(model), base_model(model), processor)
    assert merge_runs.run(merge_runs.write_yaml(folder, folder / "tove", pictures[0].parent, max_steps=2)) == 0
    return {name: folder / name for name in kinds} | {"lite": folder / "out" / "lvlm"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number, (width, height) in enumerate(SIZES):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def environment(**more: str) -> dict[str, str]:
    """Of a process with vLLM: offline, one thread, no compiler."""
    dropped = ("PYTHONPATH", "VIRTUAL_ENV", "RANK", "WORLD_SIZE", "LOCAL_RANK")
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    settings = {"OMP_NUM_THREADS": "1", "TORCH_COMPILE_DISABLE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    return kept | settings | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"} | more


def asked_of(pictures) -> list[dict]:
    return [{"image": str(picture), "text": text} for picture in pictures for text in QUESTIONS]


def ask(
    models: dict[str, Path], pictures, folder: Path, options: dict | None = None, lora: Path | None = None, **more: str
) -> dict:
    request = {"models": {name: str(path) for name, path in models.items()}, "asked": asked_of(pictures)}
    request |= {"max_tokens": 8, "options": options or {}, "lora": str(lora) if lora else None}
    (folder / "request.json").write_text(json.dumps(request))
    command = [PYTHON, ROOT / "tests" / "helpers" / "ask_vllm.py", folder / "request.json", folder / "answers.json"]
    one_process = environment(VLLM_ENABLE_V1_MULTIPROCESSING="0", **more)
    done = subprocess.run(command, env=one_process, cwd=folder, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / "answers.json").read_text())


@pytest.fixture(scope="module")
def expected(models, pictures) -> dict[str, list]:
    """(prompt ids, answer, log-probabilities of the first token) of each model, here."""
    found = {}
    for name, path in models.items():
        chat = Chat.load(path, device="cpu")
        responder = LlavaResponder(chat.model, chat.processor)
        asked = asked_of(pictures)
        texts = chat.ask_many([one["image"] for one in asked], [one["text"] for one in asked], max_new_tokens=8)
        rows = []
        for one, text in zip(asked, texts, strict=True):
            ids = responder.encode_question(one["text"], 1)
            pixels = chat.processor.image_processor(chat.open_image(one["image"]), return_tensors="pt")["pixel_values"]
            with torch.inference_mode():
                logits_V = chat.model(input_ids=torch.tensor([ids]), pixel_values=pixels).logits[0, -1]
            rows.append((ids, text, logits_V.log_softmax(-1)))
        found[name] = rows
    return found


def assert_as_here(said: list[dict], expected: list) -> None:
    for one, (ids, text, log_p_V) in zip(said, expected, strict=True):
        assert one["ids"] == ids
        assert one["text"].strip().rstrip(HALF) == text.rstrip(HALF)
        assert len(one["logprobs"]) >= 5
        for token, value in one["logprobs"].items():
            assert value == pytest.approx(log_p_V[int(token)].item(), abs=1e-3)


def test_clip_and_the_full_tower_answer_as_here(models, pictures, expected, tmp_path):
    """Ids, answers and log-probabilities, of pictures that are padded too; a file that lacks a tensor is an error."""
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in models["tove"].iterdir():
        (broken / file.name).symlink_to(file)
    tensors = load_tensors(models["tove"])
    lost = next(name for name in tensors if "experts.depth" in name)
    (broken / "model.safetensors").unlink()
    save_tensors(broken / "model.safetensors", {name: t for name, t in tensors.items() if name != lost})
    served = ("clip", "tove", "qwen3")
    said = ask({name: models[name] for name in (*served, "cohere")} | {"broken": broken}, pictures, tmp_path)
    for name in served:
        assert_as_here(said[name], expected[name])
    texts = [one["text"] for name in served for one in said[name]]
    assert len(set(texts)) > 1
    assert lost.partition("experts.")[2] in said["broken"]["error"]
    assert "missing" in said["broken"]["error"]
    assert "start it with --model-impl transformers" in said["cohere"]["error"]


def test_an_adapters_lora_over_the_model_that_it_was_trained_on(models, pictures, expected, tmp_path):
    """Projector and `tove_fusion` of that training are the model's; the adapter's folder is given as it was written."""
    said = ask({"tove": models["tove"]}, pictures, tmp_path, lora=models["tuned"] / "adapter")
    assert_as_here(said["tove"], expected["tuned"])
    assert any(one[1] != other[1] for one, other in zip(expected["tuned"], expected["tove"], strict=True))


def test_a_merged_model_needs_no_plugin(models, pictures, expected, tmp_path):
    """As `train.save_merged` of CLIP alone writes it, and `tove merge` of all experts."""
    said = ask({name: models[name] for name in ("clip", "lite")}, pictures, tmp_path, VLLM_PLUGINS="")
    for name in said:
        assert_as_here(said[name], expected[name])


def test_through_vllms_backend_of_transformers(models, pictures, expected, tmp_path):
    """`--model-impl transformers`: transformers' LLaVA with our tower in it, vLLM's attention and batches."""
    said = ask({name: models[name] for name in ("tove", "cohere")}, pictures, tmp_path, {"model_impl": "transformers"})
    for name in said:
        assert_as_here(said[name], expected[name])


@pytest.fixture
def server(models, tmp_path):
    """Address of vLLM's OpenAI server with the full tower."""
    port, log = free_port(), tmp_path / "log"
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", models["tove"], "--port", port]
    command += ["--host", "127.0.0.1", "--served-model-name", "tove", "--dtype", "float32", "--enforce-eager"]
    command += ["--max-model-len", 512, "--max-num-seqs", 8]
    with log.open("wb") as out:
        process = subprocess.Popen(
            list(map(str, command)), env=environment(), cwd=tmp_path, stdout=out, stderr=out, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 600
        while True:
            assert process.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < end, log.read_text()[-4000:]
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"{address}/health", timeout=5)
                break
            time.sleep(1)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=60)


def post(address: str, message: dict) -> dict:
    body = {"model": "tove", "messages": [message], "max_tokens": 8, "temperature": 0}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.loads(answer.read())


def test_the_openai_server_answers_many_at_once(server, pictures, expected):
    messages = [ask_vllm.chat_message(**one) for one in asked_of(pictures)]
    with concurrent.futures.ThreadPoolExecutor(len(messages)) as threads:
        answers = list(threads.map(lambda message: post(server, message), messages))
    said = [answer["choices"][0]["message"]["content"].strip() for answer in answers]
    assert said == [text for _, text, _ in expected["tove"]]
    no_picture = ask_vllm.chat_message(str(pictures[0]), "what ?")
    no_picture["content"][0]["image_url"]["url"] = f"data:image/png;base64,{base64.b64encode(b'none').decode()}"
    long = ask_vllm.chat_message(str(pictures[0]), "what ? " * 600)
    for message in (no_picture, long):
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(server, message)
        assert caught.value.code == 400
    assert post(server, messages[0])["choices"][0]["message"]["content"].strip() == said[0], "and goes on"
