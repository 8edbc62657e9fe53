"""A gate over a picture of a few pixels."""

import numpy as np

from tove_lvlm.viz.gates import TokenGates


def gates_of(gate_KYX: np.ndarray, names: list[str], detached: str = "") -> TokenGates:
    """A picture whose left half is black and whose right half is white, 4 x 6 pixels for 2 x 3 tokens."""
    picture_HW3 = np.zeros((4, 6, 3), dtype=np.uint8)
    picture_HW3[:, 3:] = 255
    maps = {name: np.full((2, 2, 3), 10 * k, dtype=np.uint8) for k, name in enumerate(names) if name != detached}
    return TokenGates(
        names=names,
        picture_HW3=picture_HW3,
        maps=maps,
        features=[],
        gate_KYX=gate_KYX,
        strength_KYX=gate_KYX / 2,
    )
