"""Low-level expert: NormalBae's surface normals, the NLL-AngMF network that Prismer uses.

The network is controlnet_aux's. Its package imports every detector it has and asks for their libraries; only the files
of the network are imported here, under a name of their own.

Shapes: B images, C channels, H W sides of the grid.

See docs/design.md, "Experts".
"""

import contextlib
import importlib
import importlib.util
import io
import sys
import types
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...base import EXPERTS, Expert
from ...pictures import normals_picture
from .config import NormalBaeConfig

_FILES = "_tove_normal_bae"
"""Name under which the folder of the network's files is imported."""
# What its own detector builds it with. The first two are of its training loss, which is not run.
_SETTINGS = {"sampling_ratio": 0.4, "importance_ratio": 0.7, "architecture": "BN"}


@EXPERTS.register("normal_bae")
class NormalBae(Expert):
    """Low level: surface normals by NormalBae of controlnet_aux; the map, or its decoder's features."""

    kind = "low_level"
    library = NormalBaeConfig.library.name
    patch_size = 32  # the encoder halves five times
    fixed_shape = (3, 512, 8)

    def __init__(self, fields: Mapping[str, Any]):
        super().__init__(fields)
        self.network = _create()

    def encode(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """Unit normals (B, 3, H, W), x to the left, y up, z to the camera; or features (B, 512, H/8, W/8).

        The features are those that the decoder's first normals are read from; its per-pixel layers are not run.
        """
        grids = self.network.encoder(pixels_B3HW)
        decoder = self.network.decoder
        if self.spec.output == "features":
            sixteenth = decoder.up1(decoder.conv2(grids[11]), grids[8])
            return decoder.up2(sixteenth, grids[6])
        return decoder(grids)[0][-1][:, :3]  # the fourth channel is how sure it is

    def picture(self, grid_BCHW: torch.Tensor) -> torch.Tensor:
        """Normals as colours, as its own detector paints them: red to the left, green up, blue to the camera."""
        return normals_picture(grid_BCHW)

    def adapt_weights(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Keys of `scannet.pt`, with or without the `module.` of a parallel run."""
        return {f"network.{key.removeprefix('module.')}": tensor for key, tensor in tensors.items()}


def _create() -> Any:
    """The network, of a package without types; its files print, and script an activation that is not used."""
    spec = importlib.util.find_spec("controlnet_aux")
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(
            "this needs the package `controlnet_aux`, which is not installed: pip install 'tove-lvlm[normals]'"
        )
    if _FILES not in sys.modules:
        package = types.ModuleType(_FILES)
        package.__path__ = [str(Path(spec.submodule_search_locations[0]) / "normalbae" / "nets")]
        sys.modules[_FILES] = package
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"{_FILES}.NNET").NNET(types.SimpleNamespace(**_SETTINGS))
