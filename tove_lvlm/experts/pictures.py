"""Maps as pictures.

Shapes: B images, C channels (1 or 3), H W sides of the map.
"""

import torch


def probability_picture(map_B1HW: torch.Tensor) -> torch.Tensor:
    """(B, H, W, 3) uint8: 0..1 to black..white.

    Args:
        map_B1HW: What lies outside 0..1 is black or white too.
    """
    grey_B1HW = (map_B1HW.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return grey_B1HW.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous()


def normals_picture(normals_B3HW: torch.Tensor) -> torch.Tensor:
    """(B, H, W, 3) uint8: -1..1 of each axis to 0..255."""
    coloured_B3HW = (normals_B3HW.float().clamp(-1, 1) + 1) * 127.5
    return coloured_B3HW.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def stretched_picture(map_BCHW: torch.Tensor) -> torch.Tensor:
    """(B, H, W, 3) uint8: the least value of each image and channel to black, the greatest to white.

    Args:
        map_BCHW: Of one channel, which becomes grey, or of three.
    """
    low, high = map_BCHW.float().amin((2, 3), keepdim=True), map_BCHW.float().amax((2, 3), keepdim=True)
    stretched = (map_BCHW.float() - low) / (high - low).clamp(min=1e-6) * 255
    return stretched.round().to(torch.uint8).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous()
