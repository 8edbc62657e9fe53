"""The tower's transformers config: architecture only.

Where weights came from is not architecture: `sources.json` beside it says that.

See docs/hosts.md, "transformers".
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers.configuration_utils import PreTrainedConfig
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.models.auto.configuration_auto import AutoConfig

from ..config import ConfigError, parse
from ..config.tower import EARLIER, RESAMPLE_MODES, FusionConfig, check_names
from ..experts import describe
from ..experts.schema import parse_expert
from .base import parse_base
from .concat import part_width

# What fixes a CLIP's network; the rest of its config (names, dtype, library version) is not architecture.
_CLIP_FIELDS = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "attention_dropout": 0.0,
}


class ToVEVisionConfig(PreTrainedConfig):
    """Architecture of a ToVE vision tower.

    Args:
        clip_config: Fields of `CLIPVisionConfig` that differ from its defaults; None where the base is another.
        base: In place of a CLIP, a base encoder that an expert family gives: `family` and its architecture fields.
        experts: One plain dictionary for each expert: `name`, `family` and the family's architecture fields.
        detached: Names of experts that are not run; their weights are neither loaded nor saved.
        mean_terms: Those of them whose mean term stands in their place, a weight of `tove_fusion`.
        select_layer: CLIP's hidden state whose patch tokens are used; of another base its `layer` says that.
        fusion: Settings of `tove_fusion` (`FusionConfig`).
        image_mean: Mean of the tower's input over [0, 1] RGB, three floats; OpenAI's CLIP's when left out, and another
            base's own, which it must be.
        image_std: Standard deviation of the same.
        input_size: Side of the square images that a host gives, a multiple of the token grid's; None is the CLIP's
            own. With more pixels the experts see more, and CLIP gets the same image at its own size.
        expert_resample: `bicubic` or `bilinear`, how the images are brought to an expert's size; None is `bicubic`,
            and `bilinear` in a config that was saved before there was this field.

    Raises:
        ConfigError: An expert or a setting does not fit, the CLIP's image or patch is not square, it has no such
            layer, the base gives no square grid of features or is normalised otherwise, or `input_size` does not fit
            the token grid.
    """

    model_type = "tove_vision"
    base_config_key = "vision_config"

    def __init__(
        self,
        clip_config: dict[str, Any] | None = None,
        experts: Sequence[dict[str, Any]] = (),
        detached: Sequence[str] = (),
        select_layer: int = -2,
        fusion: dict[str, Any] | None = None,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        input_size: int | None = None,
        expert_resample: str | None = None,
        base: dict[str, Any] | None = None,
        mean_terms: Sequence[str] = (),
        **kwargs: Any,
    ):
        self.base = None if base is None else parse_base(base, where="tower config")
        self.clip_config = None if base is not None else {**_CLIP_FIELDS, **_known_clip_fields(clip_config or {})}
        self.experts = [parse_expert(entry, where="tower config") for entry in experts]
        self.detached, self.mean_terms = list(detached), list(mean_terms)
        self.select_layer = select_layer
        fusion = dict(fusion or {})
        saved = "num_hidden_layers" in kwargs
        if saved:  # what a tower was before it could be otherwise
            fusion = {key: EARLIER[key] for key in ("transfer_scale", "transfer")} | fusion
        settings = parse(FusionConfig, fusion, where="tower config, fusion", warn=not saved)
        self.fusion = dataclasses.asdict(settings)
        own = (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD) if self.base is None else (self.base["mean"], self.base["std"])
        self.image_mean = [float(value) for value in (own[0] if image_mean is None else image_mean)]
        self.image_std = [float(value) for value in (own[1] if image_std is None else image_std)]
        self.input_size = input_size
        self.expert_resample = expert_resample or (EARLIER["expert_resample"] if saved else "bicubic")
        self._check()
        # What hosts read: image_size // patch_size is the tokens of a row, whatever the input. `hidden_states` of the
        # output are (t_clip, t_fuse): one layer above its input.
        self.hidden_size = self.base_width + self._concatenated_width()
        self.image_size = self.input_size or self.base_size
        self.patch_size = self._patch_size()
        self.num_channels = 3 if self.clip_config is None else self.clip_config["num_channels"]
        self.num_hidden_layers = 1
        for derived in ("hidden_size", "image_size", "patch_size", "num_channels", "num_hidden_layers"):
            kwargs.pop(derived, None)
        super().__init__(**kwargs)

    @property
    def base_width(self) -> int:
        """Width of the base encoder's tokens."""
        width: int = self.base["channels"] if self.base is not None else self._clip["hidden_size"]
        return width

    @property
    def base_size(self) -> int:
        """Side of the square images that the base encoder itself takes."""
        size: int = (self.base or self._clip)["image_size"]
        return size

    @property
    def side(self) -> int:
        """Tokens along one side of the square grid."""
        side: int = self.base["grid"][0] if self.base is not None else self.base_size // self._clip["patch_size"]
        return side

    @property
    def _clip(self) -> dict[str, Any]:
        assert self.clip_config is not None  # unless there is another base
        return self.clip_config

    @property
    def num_tokens(self) -> int:
        """Visual tokens per image."""
        return self.side**2

    @property
    def expert_names(self) -> list[str]:
        """All experts, attached or not, in the order of the gate's columns."""
        return [entry["name"] for entry in self.experts]

    @property
    def attached_names(self) -> list[str]:
        """The experts that are run, in order."""
        return [name for name in self.expert_names if name not in self.detached]

    @property
    def fusion_settings(self) -> FusionConfig:
        """Typed settings of `tove_fusion`."""
        return FusionConfig(**self.fusion)

    def _patch_size(self) -> int:
        """Pixels of the input to a token; hosts count tokens as `image_size // patch_size`."""
        if self.base is None and not self.input_size:
            patch_size: int = self._clip["patch_size"]
            return patch_size
        return self.image_size // self.side

    def _concatenated_width(self) -> int:
        """What the experts add to the output's width: nothing, unless their channels are concatenated."""
        if self.fusion_settings.kind != "concat":
            return 0
        return sum(part_width(describe(entry), self.fusion_settings) for entry in self.experts)

    def _check(self) -> None:
        check_names(self.expert_names, self.detached, "tower config")
        if attached := [name for name in self.mean_terms if name not in self.detached]:
            raise ConfigError(f"tower config: `mean_terms` names `{attached[0]}`, which is not detached")
        for name in self.expert_names:
            if hasattr(nn.ModuleDict, name):
                raise ConfigError(f"tower config: an expert cannot be called `{name}`; choose another `name`")
        if self.clip_config is not None:
            _check_clip(self.clip_config, self.select_layer)
        size, side, side_of_input = self.base_size, self.side, self.input_size
        if side_of_input is not None and (
            not isinstance(side_of_input, int) or side_of_input < size or side_of_input % side
        ):
            above = -(-max(size, side_of_input if isinstance(side_of_input, int) else 0) // side) * side
            raise ConfigError(
                f"tower config: `input_size` is {side_of_input!r}; expected a multiple of the {side} tokens of a "
                f"row, at least the {'CLIP' if self.base is None else 'base'}'s {size}, such as {above}"
            )
        if self.base is not None and (side_of_input or size) // ((side_of_input or size) // side) != side:
            raise ConfigError(
                f"tower config: the base gives {side} x {side} tokens for {size} pixels, which hosts cannot count by "
                f"patches; write `input_size: {-(-size // side) * side}`"
            )
        if self.base is not None and [self.image_mean, self.image_std] != [self.base["mean"], self.base["std"]]:
            raise ConfigError(
                f"tower config: images are normalised by {self.image_mean}, {self.image_std}, the base's by "
                f"{self.base['mean']}, {self.base['std']}; state the base's `mean` and `std` alone"
            )
        if self.expert_resample not in RESAMPLE_MODES:
            raise ConfigError(
                f"tower config: `expert_resample` is {self.expert_resample!r}; valid: {' | '.join(RESAMPLE_MODES)}"
            )
        if len(self.image_mean) != 3 or len(self.image_std) != 3 or min(self.image_std) <= 0:
            raise ConfigError("tower config: `image_mean` and `image_std` need 3 floats each, std above 0")


def _check_clip(fields: dict[str, Any], select_layer: int) -> None:
    size, patch, layers = (fields[key] for key in ("image_size", "patch_size", "num_hidden_layers"))
    for key, value in (("image_size", size), ("patch_size", patch)):
        if not isinstance(value, int):
            raise ConfigError(
                f"tower config: the CLIP's `{key}` is {value!r}; expected one integer, because experts are "
                "resampled to a square token grid"
            )
    if size < patch:
        raise ConfigError(f"tower config: `image_size` {size} is smaller than `patch_size` {patch}")
    if not -layers - 1 <= select_layer <= layers:
        raise ConfigError(
            f"tower config: `select_layer` is {select_layer}; a CLIP of {layers} layers has hidden states "
            f"{-layers - 1} to {layers}"
        )


def _known_clip_fields(given: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key in _CLIP_FIELDS}


AutoConfig.register(ToVEVisionConfig.model_type, ToVEVisionConfig, exist_ok=True)
