"""Features of one image as a record of fixed size, and back.

    payload | scales | layout (4 bytes) | zeros up to a multiple of 64 bytes

* `float32`: as they are; what was computed in float32 or bfloat16 comes back bit for bit. No scales.
* `float16`: divided by one power of two for the image, so that the largest lies below 2^15: nothing overflows, and what
  bfloat16 can tell apart stays apart down to 2^-29 of the largest.
* `int8`: each channel of the image divided by a 127th of its largest magnitude, and rounded.

The layout says whether a grid's channels lie side by side in memory, as a transformer leaves them: they are kept and
given back so, since a layer that reads them adds up in another order otherwise and the last bits would differ.

Shapes: B images, R bytes of a record, S scales, C h w a grid.

See docs/design.md, "Expert cache".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

DTYPES = {"float32": torch.float32, "float16": torch.float16, "int8": torch.int8}
_ALIGNMENT, _LAYOUT_BYTES = 64, 4
_TOP = 15
"""float16 holds magnitudes up to almost 2^16; one bit is left for rounding."""


class Encoded(NamedTuple):
    """Records of a batch."""

    records_BR: torch.Tensor
    """uint8, on the CPU."""
    finite_B: torch.Tensor
    """False for an image with NaN or infinity among its features, which no record holds."""


@dataclass(frozen=True)
class Codec:
    """How features of one shape are kept."""

    dtype: str
    """A name of DTYPES."""
    shape: tuple[int, ...]
    """Of one image's features: (N, D) tokens or a (C, h, w) grid."""
    channel_axis: int
    """Where the channels are in `shape`, for int8."""

    @property
    def payload_bytes(self) -> int:
        """Bytes of the features themselves."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize

    @property
    def num_scales(self) -> int:
        """S."""
        return {"float32": 0, "float16": 1, "int8": self.shape[self.channel_axis]}[self.dtype]

    @property
    def _scales_at(self) -> int:
        return -(-self.payload_bytes // 4) * 4

    @property
    def _layout_at(self) -> int:
        return self._scales_at + 4 * self.num_scales

    @property
    def record_bytes(self) -> int:
        """R."""
        return -(-(self._layout_at + _LAYOUT_BYTES) // _ALIGNMENT) * _ALIGNMENT

    def encode(self, features: torch.Tensor) -> Encoded:
        """Records of a batch's features.

        Args:
            features: (B, *shape), floating point.
        """
        x = features.detach().float()
        finite_B = torch.isfinite(x).flatten(1).all(1)
        x = torch.where(_like(finite_B, x), x, 0.0)
        scales_BS = self._scales(x)
        if self.dtype == "int8":
            stored = (x / self._spread(scales_BS)).round_().clamp_(-127, 127).to(torch.int8)
        else:
            stored = (x / _like(scales_BS[:, 0], x) if self.num_scales else x).to(DTYPES[self.dtype])
        records_BR = torch.zeros(len(x), self.record_bytes, dtype=torch.uint8)
        if channels_last := len(self.shape) == 3 and features.stride(1) == 1:
            stored = stored.movedim(1, -1)
        records_BR[:, : self.payload_bytes] = _bytes(stored)
        records_BR[:, self._scales_at : self._layout_at] = _bytes(scales_BS)
        records_BR[:, self._layout_at] = int(channels_last)
        return Encoded(records_BR, finite_B.cpu())

    def decode(self, records_BR: torch.Tensor, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Features of a batch's records, (B, *shape).

        Args:
            records_BR: From `encode`.
            dtype: Of the features.
            device: Where they are to be; the bytes go there before they are widened.
        """
        last_B = records_BR[:, self._layout_at].bool()
        if bool(last_B.any()) and not bool(last_B.all()):  # networks leave a batch of one otherwise than a larger one
            rows = [self.decode(record_R[None], dtype, device) for record_R in records_BR]
            return torch.cat([row.movedim(1, -1) for row in rows]).movedim(-1, 1)
        channels_last, records_BR = bool(last_B.any()), records_BR.to(device)
        stored = records_BR[:, : self.payload_bytes].view(DTYPES[self.dtype])
        x = stored.to(torch.float32, copy=True)
        x = x.view(-1, *self.shape[1:], self.shape[0]).movedim(-1, 1) if channels_last else x.view(-1, *self.shape)
        if self.num_scales:
            scales_BS = records_BR[:, self._scales_at : self._layout_at].view(torch.float32)
            x *= self._spread(scales_BS) if self.dtype == "int8" else _like(scales_BS[:, 0], x)
        return x.to(dtype)

    def _scales(self, x: torch.Tensor) -> torch.Tensor:
        """(B, S) float32."""
        if self.dtype == "float32":
            return x.new_zeros(len(x), 0)
        if self.dtype == "float16":
            top_B1 = x.flatten(1).abs().amax(1, keepdim=True)
            exponent_B1 = (torch.frexp(top_B1).exponent - _TOP).clamp(-100, 113)
            return torch.where(top_B1 > 0, torch.ldexp(torch.ones_like(top_B1), exponent_B1), 1.0)
        axes = [axis + 1 for axis in range(len(self.shape)) if axis != self.channel_axis % len(self.shape)]
        top_BS = x.abs().amax(axes)
        return torch.where(top_BS > 0, (top_BS / 127).clamp_min(torch.finfo(torch.float32).tiny), 1.0)

    def _spread(self, scales_BS: torch.Tensor) -> torch.Tensor:
        """A scale for each channel, in the shape that multiplies features."""
        sizes: Sequence[int] = [1] * len(self.shape)
        axis = self.channel_axis % len(self.shape)
        return scales_BS.reshape(len(scales_BS), *sizes[:axis], -1, *sizes[axis + 1 :])


def _like(values_B: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return values_B.view(-1, *[1] * (x.ndim - 1))


def _bytes(x: torch.Tensor) -> torch.Tensor:
    """(B, bytes of an image) uint8 on the CPU."""
    return x.flatten(1).contiguous().cpu().view(torch.uint8) if x.numel() else x.new_zeros(len(x), 0).byte().cpu()
