"""One image at a time with the encoded conversations about it, ready for DataLoader workers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset

from ..data.conversations import Encoded
from ..data.errors import DataError
from ..data.images import read_image, resolve_image, to_pixels
from ..data.turns import Conversation
from .probe_data import ProbeData


class Item(NamedTuple):
    """One image and the conversations about it."""

    pixels_3HW: torch.Tensor | None
    """None when the image is broken."""
    rows: list[Encoded]
    """The conversations, as the model reads them."""
    broken: dict[str, str]
    """What was left out: name -> reason."""


class ProbeItems(Dataset):
    """Image and encoded conversations as in training; never raises for broken ones.

    Args:
        data: What to read.
        image_processor: The vision tower's.
        image_aspect_ratio: As in training.
        encode: `Responder.encode_conversation`; None gives images alone.
    """

    def __init__(
        self,
        data: ProbeData,
        image_processor: Any,
        image_aspect_ratio: str,
        encode: Callable[[Conversation], list[Encoded]] | None = None,
    ):
        self.data, self.image_processor, self.image_aspect_ratio = data, image_processor, image_aspect_ratio
        self.encode = encode

    def __len__(self) -> int:
        return len(self.data.images)

    def __getitem__(self, index: int) -> Item:
        """The image at `index` of `data.images`."""
        name = self.data.images[index]
        try:
            image = read_image(resolve_image(self.data.image_folder, name))
            pixels_3HW = to_pixels(image, self.image_processor, self.image_aspect_ratio)
        except DataError as error:
            return Item(None, [], {f"image {name}": error.reason})
        rows: list[Encoded] = []
        broken: dict[str, str] = {}
        encode = self.encode
        for sample in self.data.samples[index]:
            record = self.data.record(sample)
            try:
                rows += encode(record.conversation) if encode is not None else []
            except DataError as error:
                broken[f"sample {record.sample_id}"] = error.reason
        return Item(pixels_3HW, rows, broken)
