"""Refuses in one line what vLLM would not serve, before it is started."""

from pathlib import Path

from ...config import UserError
from ...storage import load_json, weight_files

_CONFIG = "config.json"


def check_model(folder: str | Path) -> None:
    """Look at a folder that is to be served.

    Args:
        folder: A whole LLaVA model in transformers' layout.

    Raises:
        UserError: It is something else; says what to do.
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
    kind = load_json(path / _CONFIG).get("model_type")
    if kind != "llava":
        reasons = {
            "vision-encoder-decoder": "the base model, of a kind that vLLM lacks; `tove chat` and transformers ask it",
            "tove_vision": "a tower alone, which answers nothing; name the model around it",
            "llava_llama": "in the layout of LLaVA's own code; bring it to transformers' with `tove export --format "
            "transformers`",
        }
        raise UserError(f"`{folder}` is a model of type `{kind}`: {reasons.get(str(kind), 'expected `llava`')}")
    weight_files(path)
