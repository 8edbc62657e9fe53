"""`tove serve`: somebody else's server with a trained model in it, tower and all."""

import contextlib
import importlib.util
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..config import UserError
from ..hosts.vllm.checks import check_model
from .app import app

ENGINES = ("auto", "vllm", "transformers")
_TRANSFORMERS = ("fastapi", "uvicorn", "openai")
"""What `transformers serve` asks for."""


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(
    context: typer.Context,
    model: Annotated[Path, typer.Option(help="A whole LLaVA model's folder.")] = Path("outputs/miniature/tove"),
    engine: Annotated[str, typer.Option(help="vllm, transformers, or auto: vLLM where it is installed.")] = "auto",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    dry_run: Annotated[bool, typer.Option(help="Print the command and do not run it.")] = False,
) -> None:
    """Serve a trained model by the OpenAI API, in vLLM or by `transformers serve`.

    Further arguments go to that server, for example `--max-model-len 2048` to vLLM.
    """
    check_model(model)
    chosen = choose_engine(engine)
    command = server_command(chosen, model, host, port, context.args)
    print(shlex.join(command), file=sys.stderr, flush=True)
    if dry_run:
        return
    _check_free(host, port)
    code = run(command)
    if code > 0:
        raise UserError(f"the server ended with exit code {code}; its reason stands above")


def choose_engine(engine: str) -> str:
    """The server that is installed.

    Args:
        engine: One of ENGINES.

    Raises:
        UserError: It is not installed, or there is no such server.
    """
    if engine not in ENGINES:
        raise UserError(f"--engine is `{engine}`; expected {' | '.join(ENGINES)}")
    if engine in ("auto", "vllm") and importlib.util.find_spec("vllm") is not None:
        return "vllm"
    if engine == "vllm":
        raise UserError("vLLM is not installed here; it has an environment of its own: see docs/serving.md")
    absent = [name for name in _TRANSFORMERS if importlib.util.find_spec(name) is None]
    if absent:
        beginning = "there is no server here: " if engine == "auto" else ""
        raise UserError(
            f"{beginning}`transformers serve` needs {', '.join(absent)}: pip install 'tove-lvlm[serve]'; vLLM has an "
            "environment of its own, see docs/serving.md"
        )
    return "transformers"


def server_command(engine: str, model: Path, host: str, port: int, further: Sequence[str]) -> list[str]:
    """What is run; the tower is registered in it.

    Args:
        engine: `vllm` or `transformers`.
        model: The folder.
        host: Address to listen on.
        port: And port.
        further: Arguments for the server.
    """
    address = ["--host", host, "--port", str(port), *further]
    if engine == "vllm":
        return [sys.executable, "-m", "tove_lvlm.hosts.vllm", str(model), *address]
    code = "import tove_lvlm; from transformers.cli.transformers import main; main()"
    return [sys.executable, "-c", code, "serve", str(model), *address]


def run(command: Sequence[str]) -> int:
    """Exit code of a server, which gets the signals that end this process; negative where one did."""
    process = subprocess.Popen(command)
    previous = {
        number: signal.signal(number, lambda received, _: process.send_signal(received))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        return process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _check_free(host: str, port: int) -> None:
    with contextlib.closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(f"{host}:{port} cannot be listened on ({error.strerror}); give another --port") from error
