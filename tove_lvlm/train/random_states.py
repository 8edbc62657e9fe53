"""The random states of a process, which a checkpoint keeps of each rank: Python's, numpy's, torch's and its GPU's."""

import random
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch


def random_states() -> dict[str, Any]:
    """All of them, as plain values and tensors that `torch.load` takes with `weights_only`."""
    numpy_state = cast("tuple[Any, ...]", np.random.get_state())
    states = {
        "python": random.getstate(),
        "numpy": (numpy_state[0], numpy_state[1].tolist(), *numpy_state[2:]),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: Mapping[str, Any]) -> None:
    """Go on from there.

    Args:
        states: From `random_states`; further keys do not matter. Without a GPU its state is passed over.
    """
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
