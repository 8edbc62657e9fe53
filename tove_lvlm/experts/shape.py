"""What an expert gives for one square image, by a run without weights on the meta device."""

import functools
import json
from collections.abc import Hashable, Mapping
from typing import Any, cast

import torch
from torch import nn

from ..config import ConfigError


def measure_shape(family: type[nn.Module], network: str, fields: Mapping[str, Any]) -> tuple[int, int, int]:
    """(C, h, w) of the grid; the network is built once for each distinct set of fields.

    Args:
        family: The expert's class, built from its fields alone; its `patch_size` is asked for.
        network: What messages call the network.
        fields: Its architecture fields, complete.

    Raises:
        ConfigError: The network cannot be built so, or gives no grid for this `image_size`.
        ImportError: Its package is absent.
    """
    return _measured(cast(Hashable, family), network, json.dumps(fields, sort_keys=True))  # as every class is


@functools.lru_cache(maxsize=256)
def _measured(family: type[nn.Module], network: str, fields_json: str) -> tuple[int, int, int]:
    fields = json.loads(fields_json)
    name, size = fields["name"], fields["image_size"]
    expert = None
    try:
        with torch.device("meta"), torch.no_grad():
            # A shape in the fields keeps the network from asking for it while it is built.
            expert = family({**fields, "channels": 1, "grid": [1, 1]}).train(False)
            shape = tuple(expert(torch.zeros(1, 3, size, size)).shape)
    except (ImportError, ConfigError):
        raise
    except Exception as error:  # each library has its own
        _check_patch(expert, name, size, network)
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ConfigError(f"expert `{name}`: {network} cannot give a grid for `image_size` {size}: {reason}") from error
    if len(shape) != 4 or min(shape) < 1:
        raise ConfigError(
            f"expert `{name}`: {network} gives {shape} for `image_size` {size}; expected (1, C, h, w) with a grid of "
            "at least 1 x 1"
        )
    _check_patch(expert, name, size, network)
    return shape[1:]


def _check_patch(expert: nn.Module | None, name: str, size: int, network: str) -> None:
    patch = getattr(expert, "patch_size", None)
    if patch is not None and size % patch:
        lower = max(1, size // patch) * patch
        raise ConfigError(
            f"expert `{name}`: `image_size` {size} is not a multiple of the patch size {patch} of {network}; nearest: "
            f"{lower} or {lower + patch}"
        )
