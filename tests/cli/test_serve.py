"""`tove serve`: which server, with what, and what it says when it cannot start."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from helpers.ask_vllm import chat_message
from helpers.training import environment, free_port
from tove_lvlm.checkpoints.merged import save_merged
from tove_lvlm.cli import serve
from tove_lvlm.config import UserError
from tove_lvlm.inference.chat import Chat
from tove_lvlm.lvlm.lora import collect_merged


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    return tmp_path


@pytest.fixture
def installed(monkeypatch):
    """`installed("vllm")`: exactly these servers' packages are there."""

    def only(*names):
        monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: name if name in names else None)

    return only


ALL = ("fastapi", "uvicorn", "openai")


@pytest.mark.parametrize(
    ("engine", "names", "chosen"),
    [
        ("auto", ("vllm", *ALL), "vllm"),
        ("auto", ALL, "transformers"),
        ("vllm", ("vllm",), "vllm"),
        ("transformers", ("vllm", *ALL), "transformers"),
    ],
)
def test_the_server_that_is_there(installed, engine, names, chosen):
    installed(*names)
    assert serve.choose_engine(engine) == chosen


@pytest.mark.parametrize(
    ("engine", "names", "message"),
    [
        ("auto", (), r"no server here: `transformers serve` needs fastapi, uvicorn, openai: pip install 'tove-lvlm"),
        ("transformers", ("fastapi", "uvicorn"), "^`transformers serve` needs openai: "),
        ("vllm", ALL, "vLLM is not installed here; it has an environment of its own"),
        ("sglang", ALL, r"--engine is `sglang`; expected auto \| vllm \| transformers"),
    ],
)
def test_none_or_another_is_one_line(installed, engine, names, message):
    installed(*names)
    with pytest.raises(UserError, match=message):
        serve.choose_engine(engine)


def test_the_command_is_printed_and_takes_the_servers_own_arguments(tove, folder, installed):
    installed("vllm")
    code, _, err = tove("serve", "--model", folder, "--port", "8123", "--dry-run", "--max-model-len", "2048")
    assert code == 0, err
    expected = f"-m tove_lvlm.hosts.vllm {folder} --host 127.0.0.1 --port 8123 --max-model-len 2048"
    assert err.strip().endswith(expected)


def test_what_is_no_model_and_a_port_that_is_taken(tove, folder, installed):
    installed("vllm")
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        code, _, err = tove("serve", "--model", folder, "--port", taken.getsockname()[1])
    assert code == 2
    assert "cannot be listened on (Address already in use); give another --port" in err
    (folder / "config.json").write_text(json.dumps({"model_type": "tove_vision"}))
    code, _, err = tove("serve", "--model", folder)
    assert code == 2
    assert "a tower alone, which answers nothing" in err


def test_a_server_that_cannot_start_is_an_error(tove, folder, installed, monkeypatch):
    installed("vllm")
    monkeypatch.setattr(serve, "server_command", lambda *_: [sys.executable, "-c", "raise SystemExit(3)"])
    code, _, err = tove("serve", "--model", folder, "--port", free_port())
    assert code == 2
    assert "the server ended with exit code 3; its reason stands above" in err


@pytest.mark.full
def test_transformers_serves_the_full_tower(built, tmp_path):
    pytest.importorskip("openai")
    model, processor = built
    save_merged(tmp_path / "model", collect_merged(model), model, processor)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / "picture.png")
    port = free_port()
    command = [sys.executable, "-m", "tove_lvlm.cli", "serve", "--model", tmp_path / "model", "--port", port]
    process = subprocess.Popen(
        list(map(str, [*command, "--engine", "transformers", "--device", "cpu"])),
        env=environment(),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 300
        while True:
            assert process.poll() is None, process.stderr.read()[-3000:]
            assert time.monotonic() < end
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            time.sleep(0.5)
        message = chat_message(str(tmp_path / "picture.png"), "what is red ?")
        body = {"model": str(tmp_path / "model"), "messages": [message], "max_tokens": 6, "temperature": 0}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            said = json.loads(answer.read())["choices"][0]["message"]["content"]
        chat = Chat.load(tmp_path / "model", device="cpu")
        assert said.strip() == chat.ask(tmp_path / "picture.png", "what is red ?", max_new_tokens=6)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=60)
