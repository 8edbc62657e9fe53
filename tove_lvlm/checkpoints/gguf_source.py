"""A LLaVA model with a plain CLIP as llama.cpp's converters read it: encoder, projector and language model apart.

`vision/` is a CLIPVisionModel with `llava.projector` beside it, `language_model/` a causal language model. What is run
next: `commands`, docs/serving.md.

Source: llama.cpp, `tools/mtmd/legacy-models/convert_image_encoder_to_gguf.py` and `convert_hf_to_gguf.py`.
"""

import shlex
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionModel

from ..config import UserError
from ..config.trained import read_model_info
from ..lvlm.parts import causal_language_model
from ..storage import load_json, new_folder, save_json
from ..storage.pretrained import save_stock
from .base import LoadedCheckpoint
from .detect import open_checkpoint
from .model_info import read_model_block

VISION, LANGUAGE_MODEL, PROJECTOR = "vision", "language_model", "llava.projector"
_LINEAR = {"linear_1": "0", "linear_2": "2"}
_SENTENCEPIECE, _TOKENIZER_CONFIG = "tokenizer.model", "tokenizer_config.json"


def export_gguf_source(checkpoint: str | Path, output: str | Path) -> Path:
    """Write the parts.

    Args:
        checkpoint: A whole LLaVA model or an adapter, with a CLIP as its tower, such as `tove merge` writes.
        output: New folder.

    Returns:
        `output`.

    Raises:
        UserError: It has another tower, or a projector that llama.cpp lacks.
    """
    with new_folder(output, checkpoint) as folder:
        loaded = open_checkpoint(checkpoint)
        _check(loaded, checkpoint)
        _save_vision(loaded, folder / VISION)
        llm = causal_language_model(loaded.llava)
        llm.save_pretrained(folder / LANGUAGE_MODEL)
        _save_tokenizer(loaded.processor.tokenizer, folder / LANGUAGE_MODEL)
        pieces = _sentencepiece_of(Path(checkpoint))
        if pieces is not None:
            shutil.copy(pieces, folder / LANGUAGE_MODEL)
    return Path(output)


def commands(output: str | Path) -> list[str]:
    """What makes GGUF files of the parts, in llama.cpp's checkout with its own requirements.

    Args:
        output: What `export_gguf_source` wrote.
    """
    folder = Path(output).resolve()
    vision, language_model = folder / VISION, folder / LANGUAGE_MODEL
    encoder = ["python", "tools/mtmd/legacy-models/convert_image_encoder_to_gguf.py", "-m", vision]
    encoder += ["--clip-model-is-vision", "--llava-projector", vision / PROJECTOR, "-o", folder]
    words = ["python", "convert_hf_to_gguf.py", language_model, "--outfile", folder / "language_model.gguf"]
    return [shlex.join(map(str, command)) for command in (encoder, words)]


def _check(loaded: LoadedCheckpoint, checkpoint: str | Path) -> None:
    if not loaded.checkpoint.has_language_model:
        raise UserError(f"`{checkpoint}` is a tower alone; llama.cpp answers with a whole LLaVA model")
    if loaded.tower is not None:
        raise UserError(
            f"`{checkpoint}` has a ToVE tower, of which llama.cpp has no kind; merge the experts into its CLIP first: "
            f"tove merge {checkpoint} --output DIR --images FOLDER, then export DIR/lvlm"
        )
    llava = loaded.llava
    tower, act = llava.model.vision_tower, llava.config.projector_hidden_act
    if not isinstance(tower, CLIPVisionModel) or act != "gelu":
        raise UserError(
            f"`{checkpoint}` has a {type(tower).__name__} and a projector with `{act}`; llama.cpp's converter takes "
            "LLaVA-1.5's: a CLIPVisionModel and `gelu`"
        )


def _save_vision(loaded: LoadedCheckpoint, folder: Path) -> None:
    llava = loaded.llava
    clip = llava.model.vision_tower.float()
    save_stock(clip, folder)
    # The converter reads every field from the file, those at transformers' defaults too.
    fields = {key: value for key, value in clip.config.to_dict().items() if key != "_name_or_path"}
    save_json(folder / "config.json", fields | {"vision_feature_layer": llava.config.vision_feature_layer})
    projector = {}
    for name, tensor in llava.model.multi_modal_projector.state_dict().items():
        layer, _, kind = name.partition(".")
        projector[f"model.mm_projector.{_LINEAR[layer]}.{kind}"] = tensor.float().contiguous()
    torch.save(projector, folder / PROJECTOR)


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """As transformers 4 reads it, which the converters need: class and field by their names there."""
    tokenizer.save_pretrained(folder)
    settings = load_json(folder / _TOKENIZER_CONFIG)
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings["additional_special_tokens"] = settings.pop("extra_special_tokens", [])
    save_json(folder / _TOKENIZER_CONFIG, settings)


def _sentencepiece_of(checkpoint: Path) -> Path | None:
    """The language model's SentencePiece file: transformers 5 writes none, and llama.cpp reads it first."""
    folders = [checkpoint]
    if read_model_info(checkpoint).get("model"):
        folders.append(Path(read_model_block(checkpoint).llm))
    return next((folder / _SENTENCEPIECE for folder in folders if (folder / _SENTENCEPIECE).is_file()), None)
