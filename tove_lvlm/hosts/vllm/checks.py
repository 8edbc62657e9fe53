"""Refuses in one line what vLLM would not serve, before it is started. Every command imports this: no torch here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...config import UserError
from ...storage import load_json, weight_files

_CONFIG = "config.json"
_OTHERWISE = {
    "cohere": "takes the embeddings for its output layer, and probabilities would be others",
    "smollm3": "builds its attention for another shape",
}
"""Type of language model -> what vLLM's own LLaVA does with it; vLLM's backend of transformers answers as here."""
_UNSERVED = ("gpt2",)
"""Types of language model whose weights vLLM does not find, in its own LLaVA or by its backend of transformers."""
BACKEND = ("--model-impl", "transformers")


def check_model(folder: str | Path) -> None:
    """Look at a folder that is to be served; a newer version's is warned of.

    Args:
        folder: A whole LLaVA model in transformers' layout.

    Raises:
        UserError: It is something else, or its tower computes in a way that is not known here; says what to do.
        MissingWeightsError: It has no weights.
    """
    path = Path(folder)
    if not (path / _CONFIG).is_file():
        adapter = (path / "adapter" / "adapter_config.json").is_file() or (path / "adapter_config.json").is_file()
        todo = (
            f"it holds an adapter; merge it first: tove export {folder} --format merged --output DIR"
            if adapter
            else "expected a whole LLaVA model, as `train.save_merged` and `tove merge` write it"
        )
        raise UserError(f"`{folder}` has no {_CONFIG}: {todo}")
    config = load_json(path / _CONFIG)
    kind = config.get("model_type")
    if kind != "llava":
        reasons = {
            "vision-encoder-decoder": "the base model, of a kind that vLLM lacks; `tove chat` and transformers ask it",
            "tove_vision": "a tower alone, which answers nothing; name the model around it",
            "llava_llama": "in the layout of LLaVA's own code; bring it to transformers' with `tove export --format "
            "transformers`",
        }
        raise UserError(f"`{folder}` is a model of type `{kind}`: {reasons.get(str(kind), 'expected `llava`')}")
    weight_files(path)
    _check_tower(path, config.get("vision_config") or {})


def _check_tower(path: Path, tower: Mapping[str, Any]) -> None:
    from ...checkpoints.model_info import check_version
    from ...tower.configuration import ToVEVisionConfig

    check_version(path)
    if tower.get("model_type") == ToVEVisionConfig.model_type:
        ToVEVisionConfig(**tower)


def backend_of(folder: str | Path) -> tuple[str, ...]:
    """The arguments of vLLM that a model needs: `BACKEND`, where vLLM's own LLaVA would not serve it rightly.

    Args:
        folder: Of a model for which `check_model` holds.

    Raises:
        UserError: vLLM serves no such language model.
    """
    text = load_json(Path(folder) / _CONFIG).get("text_config") or {}
    _check_served(text)
    return BACKEND if _otherwise(text) else ()


def check_language_model(text: Mapping[str, Any]) -> None:
    """Refuse what vLLM's own LLaVA would not serve rightly.

    Args:
        text: `text_config` of the model.

    Raises:
        UserError: It is one of those; says how it is served.
    """
    _check_served(text)
    if reason := _otherwise(text):
        raise UserError(
            f"vLLM's own LLaVA with a language model of type `{text['model_type']}` {reason}; start it with "
            f"{' '.join(BACKEND)}"
        )


def _check_served(text: Mapping[str, Any]) -> None:
    if (kind := text.get("model_type")) in _UNSERVED:
        raise UserError(
            f"vLLM does not read a LLaVA model with a language model of type `{kind}`; try `tove serve --engine "
            "transformers`"
        )


def _otherwise(text: Mapping[str, Any]) -> str | None:
    kind = str(text.get("model_type"))
    if kind == "cohere" and text.get("tie_word_embeddings", True):  # then the embeddings are its output layer
        return None
    return _OTHERWISE.get(kind)
