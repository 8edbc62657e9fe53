"""Where the weights of a whole run come from: the tower's parts, and the language model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import ConfigError, read_yaml
from ..config.sources import WeightSource, resolve_path
from ..tower.parts import read_parts

TEXT_KEYS = ("llm", "decoder")
"""Keys of a `model` block that name a language model with its tokenizer."""


def read_weight_sources(path: str | Path, options: Sequence[str] = ()) -> dict[str, WeightSource]:
    """Part -> where its weights come from, of all that is read from elsewhere.

    Args:
        path: A training YAML, whose data need not be here; a tower's YAML; or the folder of a light tower.
        options: `a.b=c` strings put over the YAML.

    Returns:
        The tower's parts under their names, others as `model.llm`, `model.decoder`, `model.clip`.

    Raises:
        ConfigError: A YAML does not fit, or the tower's is not here.
    """
    if Path(path).is_dir():
        return read_parts(path, options)
    tree = read_yaml(path, options)
    if "model" not in tree:
        return read_parts(path, options)
    model: Any = tree["model"]
    if not isinstance(model, dict):
        raise ConfigError(f"{path}: `model` is {model!r}; expected a block of a training YAML")
    found: dict[str, WeightSource] = {}
    tower = resolve_path("model.tower", model.get("tower"), Path(path).resolve().parent, "file")
    if tower is not None:
        parts = read_parts(tower)
        found |= {"clip": parts["clip"]} if model.get("vision_tower") == "clip" else parts
    for key in (*TEXT_KEYS, "clip"):
        if isinstance(source := model.get(key), str):
            found[f"model.{key}"] = WeightSource(pretrained=source)
    return found
