"""The cache as a tower uses it: what is kept is read, what is missing is run and added.

A tower asks it in place of its CLIP and experts (`ToVEVisionModel.feature_cache`). What comes back for an image is what
lies on the disk, also when it was only just computed, so that a run gives the same numbers whether an image was kept
before or not: gate, transfers, expert dropout and balance loss come after it and notice nothing.

Shapes: B images, N tokens, D width, C h w an expert's grid, 3 H W pixels.

See docs/design.md, "Expert cache".
"""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from .. import dist
from ..errors import UserError
from ..sharding import is_partitioned
from .codec import DTYPES
from .folder import CacheFolder
from .identity import CLIP, Part, arithmetic, describe_part, image_keys
from .store import Found, PartStore

if TYPE_CHECKING:
    from ..tower.modeling import ToVEVisionModel

logger = logging.getLogger(__name__)


class FeatureCache:
    """See the module's docstring.

    Args:
        folder: Of the cache.
        tower: Whose backbones it is of, with their weights, whole on this rank.
        dtype: How features are stored, a name of `codec.DTYPES`.
        with_clip: Whether CLIP's tokens are kept too, or run each time.

    Raises:
        UserError: A backbone that would be kept is trained, or the dtype is unknown.
    """

    def __init__(
        self, folder: CacheFolder, tower: "ToVEVisionModel", dtype: str = "float16", *, with_clip: bool = True
    ):
        if dtype not in DTYPES:
            raise UserError(f"expert cache: dtype `{dtype}` is unknown; expected {', '.join(DTYPES)}")
        self.folder, self.dtype, self.with_clip = folder, dtype, with_clip
        names = [*([CLIP] if with_clip else []), *tower.experts.keys()]
        for name in names:
            module = tower.clip if name == CLIP else tower.experts[name]
            if any(parameter.requires_grad for parameter in module.parameters()):
                raise UserError(
                    f"expert cache: `{name}` has trainable weights, so what it gives changes in training; leave "
                    "`train.expert_cache` out, or freeze it"
                )
        self._parts: dict[str, Part] = {name: describe_part(tower, name) for name in names}
        self._stores: dict[tuple[str, str], PartStore] = {}
        self.num_read = self.num_computed = 0
        """Features of an image and a backbone, since the start."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "FeatureCache":
        """A copied tower has the same backbones, and goes on with the same files."""
        return self

    @torch.no_grad()
    def __call__(
        self, tower: "ToVEVisionModel", pixels_B3HW: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """What CLIP and the attached experts give: (B, N, D) tokens, and name -> (B, C, h, w) in the order of the hub.

        Args:
            tower: The one that it was made for.
            pixels_B3HW: As for the tower.
        """
        device, dtype = pixels_B3HW.device, tower.dtype
        keys = image_keys(pixels_B3HW)
        names = [*([CLIP] if self.with_clip else []), *tower.experts.keys()]
        before = len(self._stores)
        stores = {name: self._store(tower, name, device) for name in names}
        if len(self._stores) > before and dist.is_main():
            kept = ", ".join(f"{name} of {store.num_images():,}" for name, store in stores.items())
            logger.info("expert cache %s (%s) has features of images: %s", self.folder.path, self.dtype, kept)
        found = {name: store.get(keys) for name, store in stores.items()}
        features: dict[str, torch.Tensor] = {}
        infinite: list[tuple[str, int, torch.Tensor]] = []
        for name, computed in self._run(tower, pixels_B3HW, found).items():
            infinite += self._keep(name, computed, found[name], stores[name], keys)
        for name, store in stores.items():
            features[name] = store.codec.decode(found[name].records_BR, dtype, device)
            self.num_read += len(keys) - len(found[name].missing)
            self.num_computed += len(found[name].missing)
        for name, row, values in infinite:
            features[name][row] = values.to(dtype)
        t_clip_BND = features.pop(CLIP) if self.with_clip else tower.clip_tokens(pixels_B3HW)
        return t_clip_BND, {name: features[name] for name in tower.experts}

    def _store(self, tower: "ToVEVisionModel", name: str, device: torch.device) -> PartStore:
        compute = arithmetic(tower, device)
        if (name, compute) not in self._stores:
            if name not in self._parts:  # attached since
                self._parts[name] = describe_part(tower, name)
            part = self._parts[name]
            codec = part.codec(self.dtype)
            about: dict[str, Any] = {"name": name, "compute": compute, "dtype": self.dtype, "shape": list(part.shape)}
            about |= {"channel_axis": part.channel_axis, **part.depends_on}
            self._stores[name, compute] = PartStore(self.folder, part.key(compute, self.dtype), codec, about)
        return self._stores[name, compute]

    def _run(
        self, tower: "ToVEVisionModel", pixels_B3HW: torch.Tensor, found: Mapping[str, Found]
    ) -> dict[str, torch.Tensor]:
        """What each backbone gives for its missing images; of one that lacks none nothing, and it is not run."""
        asked = self._asked_by_any(tower, found)
        rows_of = {name: tuple(kept.missing or [0]) for name, kept in found.items() if kept.missing or name in asked}
        groups: dict[Any, list[str]] = {}
        for name, rows in rows_of.items():
            # Those that lack the same images share their resized pixels; under ZeRO-3 each runs in its turn, as on the
            # other ranks, and on any image where this rank lacks none.
            groups.setdefault(name if asked else rows, []).append(name)
        computed: dict[str, torch.Tensor] = {}
        for names in groups.values():
            rows = rows_of[names[0]]
            some_B3HW = pixels_B3HW if len(rows) == len(pixels_B3HW) else pixels_B3HW[list(rows)]
            if CLIP in names:
                computed[CLIP] = tower.clip_tokens(some_B3HW)
            experts, resample = [name for name in names if name != CLIP], tower.config.expert_resample
            computed |= tower.experts(some_B3HW, tower.preprocessing, tower.dtype, resample, experts)
        return {name: features for name, features in computed.items() if found[name].missing}

    def _asked_by_any(self, tower: "ToVEVisionModel", found: Mapping[str, Found]) -> Sequence[str]:
        """Backbones that any rank must run: under ZeRO-3 none can gather its weights alone."""
        if dist.world_size() == 1 or not is_partitioned(next(tower.clip.parameters())):
            return ()
        flags = torch.tensor([float(bool(kept.missing)) for kept in found.values()], device=tower.device)
        total = dist.all_reduce_sum(flags).tolist()
        return [name for name, count in zip(found, total, strict=True) if count]

    def _keep(
        self, name: str, computed: torch.Tensor, found: Found, store: PartStore, keys: Sequence[bytes]
    ) -> list[tuple[str, int, torch.Tensor]]:
        """Store features and put their records among those that were found; gives those that no record holds."""
        if computed.shape[1:] != store.codec.shape:
            raise UserError(
                f"expert cache: `{name}` gave {tuple(computed.shape[1:])}, its spec says {store.codec.shape}; without "
                "`train.expert_cache` it can be used"
            )
        encoded = store.codec.encode(computed)
        found.records_BR[found.missing] = encoded.records_BR
        finite = encoded.finite_B.nonzero().flatten().tolist()
        store.put([keys[found.missing[at]] for at in finite], encoded.records_BR[finite])
        infinite = sorted(set(range(len(computed))) - set(finite))
        return [(name, found.missing[at], computed[at]) for at in infinite]

    def close(self) -> None:
        """Give the shards that are being written free, and say how much was read; it may be used again."""
        for store in self._stores.values():
            store.close()
        if dist.is_main() and self.num_read + self.num_computed:
            total = self.num_read + self.num_computed
            logger.info("expert cache %s: %d of %d features were read", self.folder.path, self.num_read, total)
