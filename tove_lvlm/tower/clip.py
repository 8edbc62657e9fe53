"""The frozen CLIP: stock, but for staying in eval mode and stopping at the layer that is read; and how its weights are
read.

Shapes: B images, N patches, D width.

See docs/design.md, "Tower".
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from .. import storage
from ..experts.unread_layers import pass_on, unread_layers

_VISION = "vision_model."
# What a whole CLIPModel or a CLIPVisionModelWithProjection holds besides the encoder; nothing else may be left over.
_BESIDE = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")


class FrozenCLIP(CLIPVisionModel):
    """transformers' CLIP encoder that stays in eval mode whatever is asked, and can stop at a layer."""

    def forward(
        self, pixel_values: torch.Tensor | None = None, *args: Any, stop_at: int | None = None, **kwargs: Any
    ) -> Any:
        """As transformers', or with `stop_at` that hidden state, (B, 1 + N, D), and no layer behind it is run.

        Args:
            pixel_values: (B, 3, S, S).
            *args: As transformers'.
            stop_at: Index into `hidden_states`.
            **kwargs: As transformers'.
        """
        if stop_at is None:
            return super().forward(pixel_values, *args, **kwargs)
        layers = self.encoder.layers
        hidden_BND = self.pre_layrnorm(self.embeddings(pixel_values))
        for layer in layers[: range(len(layers) + 1)[stop_at]]:
            hidden_BND = layer(hidden_BND, None)
        return hidden_BND

    def train(self, mode: bool = True) -> "FrozenCLIP":
        """Stays in eval mode."""
        super().train(False)
        return self


@contextmanager
def without_unread_layers(clip: CLIPVisionModel, read: int | Sequence[int]) -> Iterator[None]:
    """Layers behind the hidden states that a host reads pass on what they get, until this is left.

    Args:
        clip: Stock; its weights and their names stay.
        read: Index into `hidden_states`, or several.
    """
    unread = unread_layers(clip.encoder.layers, read)
    for layer in unread:
        layer.forward = pass_on
    try:
        yield
    finally:
        for layer in unread:
            del layer.forward


def read_architecture(folder: Path) -> dict[str, Any]:
    """Fields of `CLIPVisionConfig` from a CLIP folder's config.json.

    Args:
        folder: Of a CLIPModel or of its vision part.

    Raises:
        MissingWeightsError: No config.json.
        WeightsError: It is not that of a CLIP.
    """
    config = storage.load_json(folder / "config.json")
    kind = config.get("model_type")
    if kind == "clip":
        # Old files carry what differs from the defaults in `vision_config_dict`.
        config = {**config.get("vision_config", {}), **(config.get("vision_config_dict") or {})}
    elif kind != "clip_vision_model":
        raise storage.WeightsError(
            f"folder `{folder}` is no CLIP: its config.json says `model_type: {kind}`; expected `clip` or "
            "`clip_vision_model`"
        )
    return CLIPVisionConfig(**config).to_dict()


def read_normalisation(folder: Path) -> tuple[list[float], list[float]] | None:
    """Mean and std of a CLIP folder's own preprocessor, or None when it has none."""
    file = folder / "preprocessor_config.json"
    config = storage.load_json(file) if file.is_file() else {}
    if "image_mean" not in config or "image_std" not in config:
        return None
    return config["image_mean"], config["image_std"]


def load_clip(clip: CLIPVisionModel, path: Path) -> None:
    """Load the encoder's weights, all of them, from a CLIPModel's or a vision-only file or folder.

    Args:
        clip: Encoder; parameters keep their dtype and device.
        path: File or folder.

    Raises:
        MissingWeightsError: Nothing there.
        WeightsError: Truncated, or keys or shapes that do not fit; names file and first keys.
    """
    files = storage.weight_files(path)
    tensors: dict[str, torch.Tensor] = {}
    for key, tensor in storage.load_tensors(path).items():
        if key.startswith(_BESIDE) or key.endswith("position_ids"):
            continue
        tensors[key.removeprefix(_VISION)] = tensor
    storage.load_strict(clip, tensors, where=files[0])
