"""Questions in batches: sorted by length, padded on the left, answered as each would be alone.

The prompt is tokenised by the code that tokenises training conversations, so that a question looks as it did there.
Left padding lets every answer of a batch start at the same column; padded places are masked, and positions count from
the first real token. Shapes: B batch, T tokens, 3 H W pixels.
"""

import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from ..config import UserError
from ..data.conversations import IMAGE_TOKEN, encode_prompt, expand_image_tokens
from ..data.images import read_image, to_pixels
from ..lvlm.parts import as_llava

Picture = Image.Image | str | Path
_REMEMBERED = 1024


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """How an answer is chosen; the default is greedy."""

    max_new_tokens: int = 64
    """Longest answer; it ends before that at `</s>`."""
    temperature: float = 0.0
    """0 takes the likeliest token; above that tokens are drawn."""
    top_p: float = 1.0
    """Draw from the likeliest tokens that hold this probability."""
    num_beams: int = 1
    seed: int = 0
    """Of what is drawn. A draw also depends on which questions share a batch."""

    def __post_init__(self):
        for name, fits, expected in (
            ("max_new_tokens", self.max_new_tokens >= 1, "1 or more"),
            ("temperature", self.temperature >= 0, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "in (0, 1]"),
            ("num_beams", self.num_beams >= 1, "1 or more"),
        ):
            if not fits:
                raise UserError(f"`{name}` is {getattr(self, name)}; expected {expected}")
        if self.temperature == 0 and self.top_p < 1:
            raise UserError("`top_p` says how tokens are drawn; give a `temperature` above 0 with it")

    def about(self) -> dict[str, float]:
        """For a record."""
        return asdict(self)

    def arguments(self) -> dict[str, float]:
        """For `generate` of transformers, whose own default draws from 50 tokens only."""
        drawn = {"temperature": self.temperature, "top_p": self.top_p, "top_k": 0} if self.temperature else {}
        return {
            "do_sample": self.temperature > 0,
            "num_beams": self.num_beams,
            "max_new_tokens": self.max_new_tokens,
            **drawn,
        }


class PixelReader:
    """Pictures as the tower's pixels. Files are remembered for a while: benchmarks ask often about one picture.

    Args:
        image_processor: Of the model.
        aspect_ratio: As in training.
        apply_exif: Turn a photograph as its camera says; LLaVA's training and evaluation do not.
    """

    def __init__(self, image_processor, aspect_ratio: str = "pad", apply_exif: bool = False):
        self._processor = image_processor
        self._aspect_ratio = aspect_ratio
        self._apply_exif = apply_exif
        self._cache: dict[str, torch.Tensor] = {}

    def __call__(self, image: Picture) -> torch.Tensor:
        """(3, H, W) float tensor.

        Raises:
            DataError: The image cannot be read.
        """
        if isinstance(image, Image.Image):
            return to_pixels(image.convert("RGB"), self._processor, self._aspect_ratio)
        key = str(image)
        pixels = self._cache.get(key)
        if pixels is None:
            pixels = to_pixels(read_image(image, apply_exif=self._apply_exif), self._processor, self._aspect_ratio)
            if len(self._cache) >= _REMEMBERED:
                self._cache.clear()
            self._cache[key] = pixels
        return pixels


def encode_question(processor, model: nn.Module, question: str, has_image: bool) -> list[int]:
    """Ids of the v1 prompt with the image's placeholders expanded."""
    ids = encode_prompt(processor.tokenizer, [human_turn(question, has_image)], "v1")
    config = as_llava(model).config
    return expand_image_tokens(ids, ids, config.image_token_id, config.image_seq_length)


def human_turn(question: str, has_image: bool) -> dict[str, str]:
    """A question as a turn of a LLaVA conversation."""
    return {"from": "human", "value": f"{IMAGE_TOKEN}\n{question}" if has_image else question}


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


@torch.inference_mode()
def generate_batch(
    model: nn.Module,
    processor,
    rows: Sequence[Sequence[int]],
    pixels: Sequence[torch.Tensor],
    decoding: DecodingConfig,
) -> list[str]:
    """The texts that follow some prompts.

    Args:
        model: A LLaVA model in eval mode.
        processor: Its LlavaProcessor.
        rows: Ids of `encode_question`.
        pixels: (3, H, W) for each row with an image, in the rows' order.
        decoding: How.
    """
    tokenizer = processor.tokenizer
    ids_BT, mask_BT = pad_left(rows, tokenizer.pad_token_id)
    if decoding.temperature:
        torch.manual_seed(decoding.seed + zlib.crc32(repr(rows).encode()))
    generating: Any = model  # `generate` is annotated with a protocol that transformers' own models do not fulfil
    out_BT = generating.generate(
        **model_inputs(model, ids_BT, mask_BT, pixels),
        **decoding.arguments(),
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )[:, ids_BT.shape[1] :]
    texts = []
    for row in out_BT.tolist():
        end = row.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in row else len(row)
        texts.append(tokenizer.decode(row[:end], skip_special_tokens=True).strip())
    return texts


def model_inputs(
    model: nn.Module, ids_BT: torch.Tensor, mask_BT: torch.Tensor, pixels: Sequence[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """What a LLaVA model takes, on its device and in its dtype."""
    llava = as_llava(model)
    inputs = {"input_ids": ids_BT.to(llava.device), "attention_mask": mask_BT.to(llava.device)}
    if len(pixels):
        inputs["pixel_values"] = torch.stack(list(pixels)).to(llava.device, llava.dtype)
    return inputs
