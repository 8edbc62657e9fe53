"""Where the parts of an adapter or of stage 1 are now: what it was trained on was moved, or lies elsewhere here."""

from collections.abc import Mapping
from pathlib import Path

from ..config import UserError
from ..config.model import MODEL_FILE
from ..config.sources import portable, resolve_source
from ..storage import load_json, lock_folder, save_json
from .detect import detect

PLACES = ("llm", "tower", "vision_tower", "clip")
_OF_PEFT = "adapter_config.json"


def relocate(folder: str | Path, places: Mapping[str, str]) -> list[Path]:
    """Write the new places into MODEL_FILE; what is there must be what it was trained on, which loading checks.

    Args:
        folder: Stage 1's folder, an adapter, or stage 2's `output_dir`.
        places: `llm`, `tower` (a YAML), `vision_tower` (a folder) or `clip` -> path, hub id or `shipped:NAME`.

    Returns:
        The files that were written.

    Raises:
        UserError: The checkpoint holds its parts itself, or has no such part.
        MissingWeightsError: There is nothing at a place.
    """
    checkpoint = detect(folder)
    info = load_json(checkpoint.folder / MODEL_FILE) if (checkpoint.folder / MODEL_FILE).is_file() else {}
    block = info.get("model") or {}
    if checkpoint.kind not in ("adapter", "stage1"):
        raise UserError(f"`{folder}` holds its parts itself ({checkpoint.kind}); it may be moved as it is")
    named = [key for key in PLACES if block.get(key) not in (None, "tove", "clip")]  # those two are kinds of tower
    absent = [key for key in places if key not in named]
    if absent:
        raise UserError(f"`{folder}` refers to no `{absent[0]}`; it refers to {', '.join(named) or 'nothing'}")
    if not places:
        raise UserError(f"say what was moved: {', '.join(f'--{key}'.replace('_', '-') for key in PLACES)}")
    block |= {key: portable(resolve_source(place)) for key, place in places.items()}
    written = [checkpoint.folder / MODEL_FILE]
    with lock_folder(checkpoint.folder):
        save_json(checkpoint.folder / MODEL_FILE, info | {"model": block})
        peft = checkpoint.folder / _OF_PEFT
        if "llm" in places and peft.is_file():  # for peft by itself
            save_json(peft, load_json(peft) | {"base_model_name_or_path": resolve_source(places["llm"])})
            written.append(peft)
    return written
