"""PP-OCRv6's small text detector as a torch network, batch norms folded into its convolutions, as its graph has it.

A stem to a quarter of the image, four stages of depthwise blocks, a feature pyramid with squeeze-and-excitation, and
the head of differentiable binarisation. The convolutions are defined in the order in which the graph runs them.

Shapes: B images, C channels, H W sides of a grid.
"""

import torch
import torch.nn.functional as F
from torch import nn

WIDTHS = (48, 96, 192, 384)
_BLOCKS = (2, 2, 4, 2)
"""Blocks of a stage; every other one, beginning with the first, has squeeze-and-excitation."""
NECK, _BRANCH = 96, 24


class TextDetector(nn.Module):
    """Probability that a pixel belongs to (the core of) a line of text."""

    def __init__(self):
        super().__init__()
        self.stem = _Stem()
        self.stages = nn.ModuleList(_stage(index) for index in range(len(WIDTHS)))
        self.lateral = nn.ModuleList(_Recalibrated(width, NECK) for width in reversed(WIDTHS))
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(NECK, NECK, 7, padding=3, groups=NECK), _Recalibrated(NECK, _BRANCH))
            for _ in WIDTHS
        )
        self.head = nn.Sequential(
            nn.Conv2d(_BRANCH * len(WIDTHS), _BRANCH, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(_BRANCH, _BRANCH, kernel_size=2, stride=2),
            nn.ReLU(),
            nn.ConvTranspose2d(_BRANCH, 1, kernel_size=2, stride=2),
            nn.Sigmoid(),
        )

    def features(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """What the head reads, (B, 96, H/4, W/4).

        Args:
            pixels_B3HW: BGR, normalised; sides are multiples of 32.
        """
        x_BCHW = self.stem(pixels_B3HW)
        grids: list[torch.Tensor] = []
        for stage in self.stages:
            x_BCHW = stage(x_BCHW)
            grids.insert(0, x_BCHW)  # coarse first from here on
        pyramid: list[torch.Tensor] = []
        for lateral, grid_BCHW in zip(self.lateral, grids, strict=True):
            own_BCHW = lateral(grid_BCHW)
            pyramid.append(own_BCHW + F.interpolate(pyramid[-1], scale_factor=2.0) if pyramid else own_BCHW)
        parts = [
            F.interpolate(branch(grid_BCHW), scale_factor=2.0 ** (len(WIDTHS) - 1 - level))
            for level, (branch, grid_BCHW) in enumerate(zip(self.branches, pyramid, strict=True))
        ]
        return torch.cat(parts, dim=1)

    def forward(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) in [0, 1].

        Args:
            pixels_B3HW: As for `features`.
        """
        return self.head(self.features(pixels_B3HW))


class _Stem(nn.Module):
    """Two ways from a half of the image, pooled and convolved, side by side to a quarter."""

    def __init__(self):
        super().__init__()
        half = WIDTHS[0] // 2
        self.down1 = nn.Conv2d(3, half, kernel_size=3, stride=2, padding=1)
        self.narrow = nn.Conv2d(half, half // 2, kernel_size=2)
        self.widen = nn.Conv2d(half // 2, half, kernel_size=2)
        self.down2 = nn.Conv2d(2 * half, half, kernel_size=3, stride=2, padding=1)
        self.out = nn.Conv2d(half, 2 * half, kernel_size=1)

    def forward(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        x_BCHW = self.down1(pixels_B3HW).relu()
        one_more = (0, 1, 0, 1)  # kernels of 2 keep the size by a column and a row at the end
        convolved_BCHW = self.narrow(F.pad(x_BCHW, one_more)).relu()
        convolved_BCHW = self.widen(F.pad(convolved_BCHW, one_more)).relu()
        pooled_BCHW = F.max_pool2d(F.pad(x_BCHW, one_more), kernel_size=2, stride=1)  # after a ReLU 0 is no maximum
        x_BCHW = self.down2(torch.cat([pooled_BCHW, convolved_BCHW], dim=1)).relu()
        return self.out(x_BCHW).relu()


def _stage(index: int) -> nn.Sequential:
    blocks: list[nn.Module] = [_Block(WIDTHS[index], squeeze=k % 2 == 0) for k in range(_BLOCKS[index])]
    return nn.Sequential(*([_Reduction(WIDTHS[index - 1], WIDTHS[index])] if index else []), *blocks)


class _Block(nn.Module):
    """Depthwise convolution, maybe squeeze-and-excitation, and a residual two-layer MLP on each pixel."""

    def __init__(self, width: int, squeeze: bool):
        super().__init__()
        self.mix = nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width)
        self.squeeze = _Squeeze(width, slope=1 / 6) if squeeze else nn.Identity()
        self.mlp = _mlp(width, width)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        x_BCHW = self.squeeze(self.mix(x_BCHW))
        return x_BCHW + self.mlp(x_BCHW)


class _Reduction(nn.Sequential):
    """Half the size, more channels."""

    def __init__(self, width: int, out_width: int):
        mix = nn.Conv2d(width, width, kernel_size=3, stride=2, padding=1, groups=width)
        super().__init__(mix, _mlp(width, out_width))


def _mlp(width: int, out_width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.GELU(), nn.Conv2d(2 * width, out_width, 1))


class _Squeeze(nn.Module):
    """Each channel times what its mean over the grid says.

    Args:
        width: C.
        slope: Of the hard sigmoid; Paddle's own default is 0.2 (the neck), torch's is 1/6 (the stages).
    """

    def __init__(self, width: int, slope: float):
        super().__init__()
        self.down, self.up = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)
        self.slope = slope

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        scale_BC11 = self.up(self.down(x_BCHW.mean((2, 3), keepdim=True)).relu())
        return x_BCHW * (scale_BC11 * self.slope + 0.5).clamp(0, 1)


class _Recalibrated(nn.Module):
    """A projection, plus itself after squeeze-and-excitation."""

    def __init__(self, width: int, out_width: int):
        super().__init__()
        self.project = nn.Conv2d(width, out_width, kernel_size=1, bias=False)
        self.squeeze = _Squeeze(out_width, slope=0.2)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        x_BCHW = self.project(x_BCHW)
        return x_BCHW + self.squeeze(x_BCHW)
