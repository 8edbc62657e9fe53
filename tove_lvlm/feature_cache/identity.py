"""What the features in the cache depend on: the key of an image, and of each backbone ("part") that saw it.

**An image's key** is the hash of the very pixels that the tower is given, with their dtype. Whatever made them (the
file's bytes, the decoder and its version, padding, transparency, the image processor) is in it without being listed, so
nothing can be forgotten, and two files with the same picture share an entry. The price: images are still decoded, by
the data loader's workers as ever, and 1.4 MB are hashed for an image of 336 x 336 pixels (1.2 ms at 1.1 GB/s). A key of
the file's bytes would save the decoding, and be wrong after the first change of Pillow's that somebody forgets.

**A part's key** is the hash of the backbone's weights, of its settings and preprocessing, of the code of its class and
its library's version, of the arithmetic (dtype, autocast) and of how features are stored. It says nothing of the other
backbones, of the gate or of the transfers: towers that share an expert share its entries, whatever they call it.
Device, attention kernel, TF32, memory format and compiling are not in it: they change the last bits that they always
change.

Shapes: B images, 3 H W pixels.

See docs/design.md, "Expert cache".
"""

import ast
import functools
import hashlib
import inspect
import json
from collections.abc import Hashable, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import nn

from ..experts.libraries import find_library
from ..storage import fingerprint
from .codec import Codec

if TYPE_CHECKING:
    from ..tower.modeling import ToVEVisionModel

CLIP = "clip"
"""Name of the part that is the tower's CLIP or other base; no expert can have it, since a name is a key beside `clip`
in a YAML."""
_CLIP_KEYS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "image_size",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
)


class Part(NamedTuple):
    """A backbone as the cache sees it."""

    depends_on: Mapping[str, Any]
    """All that its features depend on but the arithmetic, as plain values."""
    shape: tuple[int, ...]
    channel_axis: int

    def key(self, compute: str, stored: str) -> str:
        """64 hex digits.

        Args:
            compute: See `arithmetic`.
            stored: Dtype of the cache.
        """
        content = {**self.depends_on, "shape": list(self.shape), "compute": compute, "stored": stored}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def codec(self, stored: str) -> Codec:
        """How its features are kept."""
        return Codec(stored, self.shape, self.channel_axis)


def image_keys(pixels_B3HW: torch.Tensor) -> list[bytes]:
    """16 bytes for each image: SHA-256 over the pixels' bytes, dtype and shape.

    Args:
        pixels_B3HW: As the tower is given them.
    """
    kind = f"{pixels_B3HW.dtype}|{tuple(pixels_B3HW.shape[1:])}|".encode()
    rows = pixels_B3HW.detach().cpu().contiguous().flatten(1).view(torch.uint8).numpy()
    keys = []
    for row in rows:
        digest = hashlib.sha256(kind)
        digest.update(row.data)
        keys.append(digest.digest()[:16])
    return keys


def describe_part(tower: "ToVEVisionModel", name: str) -> Part:
    """A backbone of a tower.

    Args:
        tower: With its weights, whole on this rank.
        name: CLIP, or an attached expert's.
    """
    config = tower.config
    pixels = {"size": config.image_size, "mean": list(config.image_mean), "std": list(config.image_std)}
    if name == CLIP and config.base is not None:
        base: Any = tower.clip  # an Expert
        depends_on = _depends_on(base, _settings(base), base.library) | {"pixels": pixels}
        return Part(depends_on, (config.num_tokens, config.base_width), -1)
    if name == CLIP:
        fields = config.clip_config or {}
        layer = range(fields["num_hidden_layers"] + 1)[config.select_layer]
        settings = {key: fields.get(key) for key in _CLIP_KEYS} | {"layer": layer}
        depends_on = _depends_on(tower.clip, settings, "transformers") | {"pixels": pixels}
        return Part(depends_on, (config.num_tokens, config.base_width), -1)
    expert = tower.experts[name]
    depends_on = _depends_on(expert, _settings(expert), expert.library)
    depends_on |= {"pixels": pixels, "resample": config.expert_resample}
    return Part(depends_on, (expert.spec.channels, *expert.spec.grid), 0)


def _settings(expert: Any) -> dict[str, Any]:
    return {key: value for key, value in expert.fields.items() if key not in ("name", "channels", "grid")}


def arithmetic(tower: "ToVEVisionModel", device: torch.device) -> str:
    """What the backbones compute in: the dtype of their weights, and of autocast where it is on.

    Args:
        tower: The tower.
        device: Where it runs.
    """
    dtype = str(tower.dtype).removeprefix("torch.")
    if not torch.is_autocast_enabled(device.type):
        return dtype
    return f"{dtype}, autocast {str(torch.get_autocast_dtype(device.type)).removeprefix('torch.')}"


def _depends_on(module: nn.Module, settings: Mapping[str, Any], library: str) -> dict[str, Any]:
    kind = type(module)
    return {
        "settings": json.loads(json.dumps(settings, default=str)),
        "weights": fingerprint(module.state_dict()),
        "code": [kind.__qualname__, code_of(cast(Hashable, kind))],
        "library": [library, _version(library)],
    }


@functools.cache
def code_of(kind: Any) -> str:
    """Hash of the source file that defines a class, comments, layout and docstrings apart; empty where there is none.

    Args:
        kind: Of an expert: one of your own may be edited between two runs. What it imports is not looked at.
    """
    try:
        with open(inspect.getsourcefile(kind) or "", encoding="utf-8") as file:
            tree = ast.parse(file.read())
    except (OSError, TypeError, SyntaxError, UnicodeDecodeError):
        return ""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_text(part)]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _version(library: str) -> str:
    found = find_library(library)
    module = library if found is None else found.module
    for name in (library, module, f"{module}_torch"):
        try:
            return metadata.version(name)
        except (metadata.PackageNotFoundError, ValueError):
            continue
    return ""
