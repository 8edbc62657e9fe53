"""Put a model among VLMEvalKit's own.

See docs/hosts.md, "VLMEvalKit".
"""

import importlib
from functools import partial
from pathlib import Path
from typing import Any

from ...config import ConfigError, UserError
from .model import CLASS, ToVEVLM


def register(name: str, model_path: str | Path, **options: Any) -> None:
    """Put a model among VLMEvalKit's, in this process.

    Args:
        name: What `--model` and result files call it.
        model_path: As for `ToVEVLM`, as are `options`.

    Raises:
        ConfigError: VLMEvalKit has a model of that name.
        UserError: VLMEvalKit cannot be imported.
    """
    supported = _vlmeval("vlmeval.config").supported_VLM
    if name in supported and getattr(supported[name], "func", None) is not ToVEVLM:
        raise ConfigError(f"VLMEvalKit has a model `{name}` of its own; choose another name")
    supported[name] = partial(ToVEVLM, model_path=str(model_path), **options)
    setattr(_vlmeval("vlmeval.vlm"), CLASS, ToVEVLM)


def _vlmeval(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != "vlmeval":
            raise  # VLMEvalKit is there and one of its own imports is not: that message says more
        raise UserError(
            "VLMEvalKit is not installed: clone github.com/open-compass/VLMEvalKit and `pip install -e` it, or run "
            "`python -m tove_lvlm.harnesses.vlmevalkit --root` with the clone"
        ) from error
