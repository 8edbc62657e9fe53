"""What every kind of model is asked with: how an answer is chosen, pictures as pixels, questions in batches.

Shapes: B batch, T tokens, 3 H W pixels.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image

from ..config import UserError
from ..data.images import read_image, to_8_bit, to_pixels
from ..data.turns import IMAGE_TOKEN

Picture = Image.Image | str | Path
Pictures = Picture | Sequence[Picture] | None
"""What a question is about: one picture, several in the order in which it speaks of them, or none."""

REMEMBERED_BYTES = 256 << 20
"""What the pixels of files that were read last may take: 256 MiB, some 200 pictures of 336 pixels."""


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """How an answer is chosen; the default is greedy."""

    max_new_tokens: int = 64
    """Longest answer; it ends before that with the token that ends one."""
    temperature: float = 0.0
    """0 takes the likeliest token; above that tokens are drawn."""
    top_p: float = 1.0
    """Draw from the likeliest tokens that hold this probability."""
    num_beams: int = 1
    min_new_tokens: int = 0
    """Shortest answer."""
    length_penalty: float = 1.0
    """With beams: above 1 longer answers win, below 1 shorter ones."""
    seed: int = 0
    """Of what is drawn. A draw also depends on which questions share a batch."""

    def __post_init__(self):
        for name, fits, expected in (
            ("max_new_tokens", self.max_new_tokens >= 1, "1 or more"),
            ("temperature", self.temperature >= 0, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "in (0, 1]"),
            ("num_beams", self.num_beams >= 1, "1 or more"),
            ("min_new_tokens", 0 <= self.min_new_tokens <= self.max_new_tokens, f"0 to {self.max_new_tokens}"),
        ):
            if not fits:
                raise UserError(f"`{name}` is {getattr(self, name)}; expected {expected}")
        if self.temperature == 0 and self.top_p < 1:
            raise UserError("`top_p` says how tokens are drawn; give a `temperature` above 0 with it")
        if self.num_beams == 1 and self.length_penalty != 1:
            raise UserError("`length_penalty` weighs beams; give `num_beams` above 1 with it")

    def about(self) -> dict[str, float]:
        """For a record; lengths only where they are not the usual ones, as in records of before they could be set."""
        unset = {"min_new_tokens": 0, "length_penalty": 1.0}
        return {name: value for name, value in asdict(self).items() if unset.get(name) != value}

    def arguments(self) -> dict[str, float]:
        """For `generate` of transformers, whose own default draws from 50 tokens only."""
        drawn = {"temperature": self.temperature, "top_p": self.top_p, "top_k": 0} if self.temperature else {}
        lengths: dict[str, float] = {"min_new_tokens": self.min_new_tokens} if self.min_new_tokens else {}
        if self.num_beams > 1:
            lengths["length_penalty"] = self.length_penalty
        return {
            "do_sample": self.temperature > 0,
            "num_beams": self.num_beams,
            "max_new_tokens": self.max_new_tokens,
            **lengths,
            **drawn,
        }


class PixelReader:
    """Pictures as the tower's pixels. Files are remembered for a while: benchmarks ask often about one picture.

    Args:
        image_processor: Of the model.
        aspect_ratio: As in training.
        apply_exif: Turn a photograph as its camera says; LLaVA's training and evaluation do not.
        remembered_bytes: What remembered pixels may take together; those that were not asked for longest go first.
    """

    def __init__(
        self,
        image_processor,
        aspect_ratio: str = "pad",
        apply_exif: bool = False,
        remembered_bytes: int = REMEMBERED_BYTES,
    ):
        self._processor = image_processor
        self._aspect_ratio = aspect_ratio
        self._apply_exif = apply_exif
        self._most = remembered_bytes
        self._num_bytes = 0
        self._cache: dict[str, torch.Tensor] = {}  # the last one asked for at the end

    def __call__(self, image: Picture) -> torch.Tensor:
        """(3, H, W) float tensor.

        Raises:
            DataError: The image cannot be read.
        """
        if isinstance(image, Image.Image):
            return to_pixels(to_8_bit(image), self._processor, self._aspect_ratio)
        key = str(image)
        pixels = self._cache.pop(key, None)
        if pixels is None:
            pixels = to_pixels(read_image(image, apply_exif=self._apply_exif), self._processor, self._aspect_ratio)
            self._num_bytes += pixels.nbytes
        self._cache[key] = pixels
        while self._num_bytes > self._most:
            self._num_bytes -= self._cache.pop(next(iter(self._cache))).nbytes
        return pixels


def pictures_of(about: Pictures) -> list[Picture]:
    """The pictures that a question is about."""
    if about is None:
        return []
    return [about] if isinstance(about, Image.Image | str | Path) else list(about)


def human_turn(question: str, num_images: int) -> dict[str, str]:
    """A question as a turn of a LLaVA conversation, its images before it unless it says itself where they are.

    Args:
        question: Plain text; may have `<image>` at the place of each of several images.
        num_images: That it is about.
    """
    placed = num_images > 1 and question.count(IMAGE_TOKEN) == num_images
    return {"from": "human", "value": question if placed else f"{IMAGE_TOKEN}\n" * num_images + question}


def length_sorted(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Positions in batches of similar length, which waste no padding; the longest first, so that a lack of memory shows
    at once. Among equals the order is kept.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def pad_left(rows: Sequence[Sequence[int]], value: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids_BT, mask_BT) int64 on the CPU; the mask is 0 at what was padded."""
    width = max(map(len, rows))
    ids_BT = torch.tensor([[value] * (width - len(row)) + list(row) for row in rows])
    mask_BT = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids_BT, mask_BT


def pad_right(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """(B, T) ids: a causal model's earlier places do not see what follows them."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])
