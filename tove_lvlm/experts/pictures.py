"""Maps as pictures.

Shapes: B images, H W sides of the map.
"""

import torch


def probability_picture(map_B1HW: torch.Tensor) -> torch.Tensor:
    """(B, H, W, 3) uint8: 0..1 to black..white."""
    grey_B1HW = (map_B1HW.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return grey_B1HW.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous()


def normals_picture(normals_B3HW: torch.Tensor) -> torch.Tensor:
    """(B, H, W, 3) uint8: -1..1 of each axis to 0..255."""
    coloured_B3HW = (normals_B3HW.float().clamp(-1, 1) + 1) * 127.5
    return coloured_B3HW.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
