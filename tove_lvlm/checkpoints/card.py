"""The README.md of a whole model on the hub: what it is, how it is asked, its tower's parts and their licences."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config.sources import is_hub_id
from ..config.trained import read_model_info
from ..storage import load_json
from ..tower.card import MARK, front_matter, front_of, parts_of, table
from ..tower.configuration import ToVEVisionConfig
from ..tower.parts import read_parts
from .experts import CONFIG

_USE = {
    "llava": """    import tove_lvlm  # pip install tove-lvlm
    from transformers import pipeline
    ask = pipeline("image-text-to-text", model="{repo}")

    tove chat a.png --model FOLDER                  # a copy of this repository
    tove serve --model FOLDER                       # vLLM or `transformers serve`""",
    "vision-encoder-decoder": """    import tove_lvlm  # pip install tove-lvlm
    from transformers import VisionEncoderDecoderModel
    model = VisionEncoderDecoderModel.from_pretrained("{repo}")

    tove chat a.png --model FOLDER                  # a copy of this repository""",
}
_STOCK = """    from transformers import pipeline
    ask = pipeline("image-text-to-text", model="{repo}")"""


def model_card(folder: Path, repo: str) -> str:
    """The text.

    Args:
        folder: A whole model's.
        repo: Hub id that it will have.
    """
    config, info = load_json(folder / CONFIG), read_model_info(folder)
    vision = config.get("vision_config") or config.get("encoder") or {}
    block = info.get("model") or {}
    text = next((str(block[key]) for key in ("llm", "decoder") if isinstance(block.get(key), str)), None)
    front: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "image-text-to-text"}
    if vision.get("model_type") == ToVEVisionConfig.model_type:
        tower = ToVEVisionConfig(**vision)
        parts = parts_of(tower, stated_sources(folder))
        front |= front_of([part for part in parts if not part.detached])
        names = ", ".join(tower.attached_names) or "none"
        sees = f"a ToVE tower: CLIP with the features of frozen vision experts ({names}) fused into its tokens"
        use, rest = _USE.get(str(config.get("model_type")), _STOCK), table(parts)
    else:
        front |= {"tags": ["llava"], "license": "other"}
        sees, use, rest = f"a plain `{vision.get('model_type')}`", _STOCK, ""
    if text is not None and is_hub_id(text):
        front["base_model"] = list(dict.fromkeys([text, *front.get("base_model", [])]))
    ratio = info.get("image_aspect_ratio", "pad")
    versions = ", ".join(f"{name} {version}" for name, version in (info.get("written_by") or {}).items())
    return f"""{front_matter(front)}
{MARK}

# {repo.rpartition("/")[2]}

A vision-language model that sees through {sees}.

{use.format(repo=repo)}

Language model: {_named(text)}. Pictures are made square by `image_aspect_ratio: {ratio}`.
Written by {versions or "unknown versions"}.

{rest}"""


def stated_sources(folder: Path) -> dict[str, Any]:
    """Where the tower's parts came from, as in a tower's sources.json, out of the YAML that a whole model was trained
    with; empty where that is not here.

    Args:
        folder: The model's.
    """
    yaml = read_model_info(folder).get("model", {}).get("tower")
    if not yaml or not Path(yaml).is_file():
        return {}
    parts = {name: _origin(dataclasses.asdict(source)) for name, source in read_parts(yaml).items()}
    return {"clip": parts.pop("clip", {}), "experts": parts}


def _origin(stated: Mapping[str, Any]) -> dict[str, Any]:
    source = stated["pretrained"]
    return {**stated, "source": None if source == "none" else source}


def _named(source: str | None) -> str:
    return f"`{source}`" if source is not None and is_hub_id(source) else "not on the hub"
