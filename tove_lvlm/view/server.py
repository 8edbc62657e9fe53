"""The page on the network: where it listens, who may come in, and what is left behind (nothing)."""

import contextlib
import os
import signal
import tempfile
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import UserError
from ..eval.disagreements import read_side_by_side
from .desk import Desk
from .pictures import MAX_BYTES, TEMPORARY, find_examples
from .safety import LOOPBACK, SameOriginOnly
from .worker import Worker

USER = "tove"
"""Name to log in with."""


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """What `tove view` was given."""

    models: tuple[Path, ...]
    """The first is shown; all are compared."""
    examples: Path | None = None
    """Folder of pictures that are offered."""
    runs: tuple[Path, ...] = ()
    """Folders of `tove eval`, whose disagreements are shown."""
    data: Path = Path(".")
    """Where the label files and pictures of `runs` are."""
    images: Path | None = None
    """Picture folder of `runs`, where it is elsewhere."""
    device: str = "cpu"
    host: str = "127.0.0.1"
    port: int = 7860
    password: str | None = None
    """Asked for with the name `tove`; required where `host` is not this machine alone."""
    max_waiting: int = 16
    """Requests that may wait for the models."""

    def __post_init__(self):
        if not self.is_local and not self.password:
            raise UserError(
                f"--host {self.host} lets other machines in: set TOVE_VIEW_PASSWORD, which they are asked for (the "
                f"user is `{USER}`), or leave --host out"
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the page."""
        return self.host in ("127.0.0.1", "localhost", "::1")


@contextlib.contextmanager
def serving(config: ViewConfig) -> Iterator[str]:
    """The page while the block runs.

    Args:
        config: What to show, and where.

    Yields:
        Its address.

    Raises:
        UserError: A model, a run or a folder cannot be read, or the port is taken.
        ImportError: gradio is absent; names the extra.
    """
    examples = find_examples(config.examples, list(config.models))
    runs = read_side_by_side(config.runs, config.data, config.images) if config.runs else None
    worker = Worker(config.models, config.device)
    with tempfile.TemporaryDirectory(prefix="tove-view-") as folder, contextlib.closing(worker):
        os.environ[TEMPORARY] = folder  # before gradio is imported
        from .components import theme
        from .disagreements import Paging
        from .gate_view import STATIC, static
        from .page import build_page

        page = build_page(Desk(worker, worker.start()), examples, None if runs is None else Paging(runs))
        page.queue(max_size=config.max_waiting, api_open=False)
        try:
            _, address, _ = page.launch(
                server_name=config.host,
                server_port=config.port,
                auth=(USER, config.password) if config.password else None,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                show_error=True,
                max_file_size=MAX_BYTES,
                allowed_paths=[str(example.path) for example in examples],
                enable_monitoring=False,
                footer_links=[],
                run_history=False,
                ssr_mode=False,
                mcp_server=False,
                favicon_path=STATIC / "favicon.svg",
                theme=theme(),
                css=static("page.css"),
                app_kwargs=_protection(config),
            )
        except OSError as error:
            raise UserError(f"{config.host}:{config.port} cannot be listened on; give another --port") from error
        try:
            yield address
        finally:
            page.close(verbose=False)


def view(config: ViewConfig, is_browser_wanted: bool = True, say: Any = print) -> None:
    """Show the page until somebody presses Ctrl-C or ends this process.

    Args:
        config: What to show, and where.
        is_browser_wanted: Open one, where there is one.
        say: Prints a line.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    with serving(config) as address:
        say(f"{address} (Ctrl-C ends it)")
        if is_browser_wanted and config.is_local and has_browser():
            webbrowser.open(address)
        threading.Event().wait()


def has_browser() -> bool:
    """Whether there is a browser that a person sees."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or os.name == "nt"):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def _end(*_: Any) -> None:
    raise SystemExit(0)  # through all that has to be closed


def _protection(config: ViewConfig) -> dict[str, Any]:
    from starlette.middleware import Middleware

    hosts: Sequence[str] = LOOPBACK if config.is_local else ()
    return {"middleware": [Middleware(SameOriginOnly, hosts=hosts)], "docs_url": None, "redoc_url": None}
