"""What an expert gives for one square image, by a run without weights on the meta device."""

import functools
import json
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch

from ..config import ConfigError

if TYPE_CHECKING:
    from .base import Expert


def measure_shape(family: "type[Expert]", fields: Mapping[str, Any]) -> tuple[int, int, int]:
    """(C, h, w) of the grid; the network is built once for each distinct set of fields.

    Args:
        family: The expert's class.
        fields: Its architecture fields, complete.

    Raises:
        ConfigError: The network cannot be built so, or gives no grid for this `image_size`.
        ImportError: Its package is absent.
    """
    return _measured(cast(Hashable, family), json.dumps(fields, sort_keys=True))  # as every class is


@functools.lru_cache(maxsize=256)
def _measured(family: "type[Expert]", fields_json: str) -> tuple[int, int, int]:
    fields = json.loads(fields_json)
    size, network_name = fields["image_size"], f"{family.library}'s `{family.architecture_of(fields)}`"
    expert = None
    try:
        with torch.device("meta"), torch.no_grad():
            # A shape in the fields keeps the network from asking for it while it is built.
            expert = family({**fields, "channels": 1, "grid": [1, 1]}).train(False)
            shape = tuple(expert(torch.zeros(1, 3, size, size)).shape)
    except (ImportError, ConfigError):
        raise
    except Exception as error:  # each library has its own
        _check_patch(expert, size, network_name)
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ConfigError(
            f"expert `{fields['name']}`: {network_name} cannot give a grid for `image_size` {size}: {reason}"
        ) from error
    if len(shape) != 4 or min(shape) < 1:
        raise ConfigError(
            f"expert `{fields['name']}`: {network_name} gives {shape} for `image_size` {size}; expected (1, C, h, w) "
            "with a grid of at least 1 x 1"
        )
    _check_patch(expert, size, network_name)
    return shape[1:]


def _check_patch(expert: "Expert | None", size: int, network_name: str) -> None:
    if expert is not None and expert.patch_size is not None and size % expert.patch_size:
        lower = max(1, size // expert.patch_size) * expert.patch_size
        raise ConfigError(
            f"expert `{expert.fields['name']}`: `image_size` {size} is not a multiple of the patch size "
            f"{expert.patch_size} of {network_name}; nearest: {lower} or {lower + expert.patch_size}"
        )
