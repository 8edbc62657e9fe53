"""The vision expert: a frozen network, pixels in, a grid out.

Shapes: B images, C channels of the grid, h w its sides.

See docs/design.md, "Experts".
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from .. import storage
from ..config import ConfigError
from ..registry import FolderRegistry
from .pictures import stretched_picture
from .preprocess import Preprocessing
from .schema import EXPERT_CONFIGS, FAMILIES, THIS_PACKAGE, ExpertConfig, parse_expert
from .shape import measure_shape

EXPERTS: "FolderRegistry[type[Expert]]" = FolderRegistry("expert family", FAMILIES, "model")
"""Family name -> class."""


@dataclass(frozen=True, kw_only=True)
class ExpertSpec:
    """What an expert is and gives, without running it. Where its weights come from is not part of it."""

    name: str
    """Within the tower."""
    family: str
    kind: str = "embedding"
    """`embedding`: features learned for their own sake. `low_level`: it predicts a map (depth, normals, edges, ...)."""
    output: str
    """`features` or `map`."""
    library: str = ""
    """Package whose network it is."""
    architecture: str = ""
    """The library's name of the network."""
    channels: int
    """C of the grid: the feature width, or the channels of the map."""
    grid: tuple[int, int]
    """h and w of the grid for an image of `preprocessing.size`."""
    preprocessing: Preprocessing


class Expert(nn.Module):
    """A frozen network whose `encode` gives a feature grid or a map.

    Subclasses build the network in `__init__` from the architecture fields alone (it may run on the meta device),
    override `encode` and, where keys differ, `adapt_weights`.

    Args:
        fields: The family's architecture fields, complete.
    """

    kind: ClassVar[str] = "embedding"
    """`embedding` or `low_level`."""
    library: ClassVar[str] = THIS_PACKAGE.name
    """Package whose networks these are."""
    fixed_shape: ClassVar[tuple[int, int, int] | None] = None
    """Channels of its map, which is as large as the image, channels of its features, and pixels to a step of these:
    where that is known without building the network. Goes with a `patch_size` of the class."""
    patch_size: int | None = None
    """Side of the network's patches, of which the image must be a multiple; None where any size will do."""
    bf16_bound: ClassVar[float] = 0.1
    """How far bfloat16 may take its grid from that of float32, in units of the grid's spread (`experts.precision`)."""
    channels_last: bool = False
    """Whether the weights of its convolutions lie in torch's `channels_last` (`memory_format.set_channels_last`)."""
    channels_last_asked: bool = False
    """What it was last told; one that is not convolutional stays as it is."""

    def __init__(self, fields: Mapping[str, Any]):
        super().__init__()
        self.fields = dict(fields)
        self.spec = self.describe(fields)
        self._made_on_meta = False
        self._fused: dict[str, bool] = {}

    @property
    def has_weights(self) -> bool:
        """Whether there is anything to load, as its family's fields say."""
        return EXPERT_CONFIGS.get(self.fields["family"]).has_weights

    @classmethod
    def describe(cls, fields: Mapping[str, Any]) -> ExpertSpec:
        """The spec from the architecture fields, without building the network where they say what it gives."""
        channels, height, width = cls.shape_of(fields)
        return ExpertSpec(
            name=fields["name"],
            family=fields["family"],
            kind=cls.kind,
            output=fields["output"],
            library=cls.library,
            architecture=cls.architecture_of(fields),
            channels=channels,
            grid=(height, width),
            preprocessing=Preprocessing(fields["image_size"], tuple(fields["mean"]), tuple(fields["std"])),
        )

    @classmethod
    def shape_of(cls, fields: Mapping[str, Any]) -> tuple[int, int, int]:
        """(C, h, w) of the grid for one image."""
        if fields["channels"] is not None and fields["grid"] is not None:
            return (fields["channels"], *fields["grid"])
        size = fields["image_size"]
        if cls.fixed_shape is None or fields["channels"] is not None or size % cls.patch_size:
            network = f"{cls.library}'s `{cls.architecture_of(fields)}`"
            return measure_shape(cls, network, fields)  # which also says what sizes fit
        of_map, of_features, step = cls.fixed_shape
        return (of_map, size, size) if fields["output"] == "map" else (of_features, size // step, size // step)

    @classmethod
    def architecture_of(cls, fields: Mapping[str, Any]) -> str:
        """The library's name of the network."""
        return str(fields.get("architecture", fields["family"]))

    @classmethod
    def entry_of(cls, architecture: str) -> dict[str, Any]:
        """Fields and weights of an architecture by name alone, as its library's own tables say.

        Raises:
            ConfigError: The library does not know it, or has no such tables.
        """
        raise ConfigError(
            f"`{architecture}`: there is no table of {cls.library}'s networks; write `family`, `pretrained` and the "
            "family's fields instead"
        )

    def encode(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """The expert's grid.

        Args:
            pixels_B3HW: As `spec.preprocessing` says, in the dtype of the expert's weights.

        Returns:
            (B, C, h, w).
        """
        raise NotImplementedError

    def forward(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """As `encode`, through the module's hooks (ZeRO-3 gathers weights in them)."""
        return self.encode(pixels_B3HW)

    def picture(self, grid_BCHW: torch.Tensor) -> torch.Tensor:
        """The map as a picture, (B, H, W, 3) uint8, each channel stretched over the image.

        Args:
            grid_BCHW: What `encode` gave; one or three channels.

        Raises:
            ValueError: The grid has another number of channels.
        """
        if grid_BCHW.shape[1] not in (1, 3):
            raise ValueError(f"expert `{self.spec.name}`: {grid_BCHW.shape[1]} channels; a picture has 1 or 3")
        return stretched_picture(grid_BCHW)

    def adapt_weights(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The state dict that `load_state_dict` takes, from the tensors on disk."""
        return tensors

    def load_pretrained(self, path: str | os.PathLike[str]) -> None:
        """Load the network's weights, all of them.

        Args:
            path: Weight file, or folder that holds one.

        Raises:
            MissingWeightsError: Nothing there.
            WeightsError: Truncated, unreadable, or keys or shapes that do not fit; names file and first keys.
        """
        files = storage.weight_files(path)
        storage.load_strict(self, self.adapt_weights(storage.load_tensors(path)), where=files[0])

    def train(self, mode: bool = True) -> "Expert":
        """Stays in eval mode whatever is asked: dropout or a batch norm's statistics must not wake."""
        return super().train(False)

    def use_attention(self, implementation: str | None) -> None:
        """Follow transformers' `attn_implementation`.

        Args:
            implementation: `eager` computes attention step by step; any other leaves the choice to timm, whose
                switch (`fused_attn`) this is. A family with a switch of its own overrides this.
        """
        for name, module in self.named_modules():
            if hasattr(module, "fused_attn"):
                fused = self._fused.setdefault(name, module.fused_attn)
                module.fused_attn = fused and implementation != "eager"

    # ---- buffers that no checkpoint holds ----

    def remember_meta_device(self) -> None:
        """Remember whether the network was made on the meta device; called at the end of `__init__`."""
        self._made_on_meta = any(buffer.is_meta for _, buffer in self.non_persistent_buffers())

    def non_persistent_buffers(self) -> list[tuple[str, torch.Tensor]]:
        """The non-persistent buffers, by name."""
        persistent = self.state_dict().keys()
        return [(name, buffer) for name, buffer in self.named_buffers() if name not in persistent]

    @torch.no_grad()
    def repair_buffers(self) -> None:
        """Fill the non-persistent buffers of a network that was made on the meta device and then given its weights.

        transformers materialises such buffers without a value, and rotary tables or relative-position
        indices live there. A twin built on the CPU has the right ones.
        """
        buffers = self.non_persistent_buffers()
        if not self._made_on_meta or any(buffer.is_meta for _, buffer in buffers):
            return
        with torch.device("cpu"):
            twin = dict(type(self)(self.fields).non_persistent_buffers())
        for name, buffer in buffers:
            buffer.copy_(twin[name])
        self._made_on_meta = False


def register_expert(name: str, fields: type[ExpertConfig] = ExpertConfig) -> Callable[[type[Expert]], type[Expert]]:
    """Decorator that makes a class an expert family: `family: NAME` in a tower's YAML.

    A package that brings one names its module under the entry-point group `tove_lvlm.experts`.

    Args:
        name: Name of the family.
        fields: Dataclass of its architecture fields; the common ones when it has no further.

    Raises:
        ValueError: The name is malformed or taken, or the class is no `Expert` with an `encode`.
    """

    def decorate(family: type[Expert]) -> type[Expert]:
        if not (isinstance(family, type) and issubclass(family, Expert)) or family.encode is Expert.encode:
            raise ValueError(f"{family!r} cannot be the expert family `{name}`: a subclass of Expert with `encode` can")
        EXPERTS.register(name)(family)
        EXPERT_CONFIGS.register(name)(fields)
        return family

    return decorate


def describe(entry: Mapping[str, Any]) -> ExpertSpec:
    """The spec of an expert entry of a tower's config.

    Args:
        entry: `name`, `family` and architecture fields.

    Raises:
        ConfigError: Unknown family or field, or a value that does not fit.
    """
    fields = parse_expert(entry, where="tower config")
    return EXPERTS.get(fields["family"]).describe(fields)


def build_expert(entry: Mapping[str, Any]) -> Expert:
    """The expert of an entry of a tower's config, frozen, without weights.

    Raises:
        ConfigError: As for `describe`.
        ImportError: The family's package is absent.
    """
    fields = parse_expert(entry, where="tower config")
    expert = EXPERTS.get(fields["family"])(fields)
    return expert.requires_grad_(False).train(False)
