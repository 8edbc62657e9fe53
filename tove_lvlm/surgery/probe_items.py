"""One image at a time with the encoded conversations about it, ready for DataLoader workers."""

from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset

from ..data.conversations import encode
from ..data.dataset import Sample, check_context
from ..data.errors import DataError
from ..data.images import read_image, resolve_image, to_pixels
from .probe_data import TEMPLATE, ProbeData


class Item(NamedTuple):
    """One image and the conversations about it."""

    pixels_3HW: torch.Tensor | None
    """None when the image is broken."""
    samples: list[Sample]
    """Each without pixels of its own: a tensor without elements says that there is an image."""
    broken: dict[str, str]
    """What was left out: name -> reason."""


class ProbeItems(Dataset):
    """Image and encoded conversations as in stage 2's training; never raises for broken ones.

    Args:
        data: What to read.
        image_processor: The vision tower's.
        image_aspect_ratio: As in training.
        tokenizer: None gives images alone.
        num_image_tokens: Tokens of one image.
        model_max_length: The context.
    """

    def __init__(
        self,
        data: ProbeData,
        image_processor: Any,
        image_aspect_ratio: str,
        tokenizer: Any = None,
        num_image_tokens: int = 0,
        model_max_length: int = 0,
    ):
        self.data, self.image_processor, self.image_aspect_ratio = data, image_processor, image_aspect_ratio
        self.tokenizer, self.num_image_tokens, self.model_max_length = tokenizer, num_image_tokens, model_max_length

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
        samples: list[Sample] = []
        broken: dict[str, str] = {}
        for sample in self.data.samples[index] if self.tokenizer is not None else ():
            record = self.data.record(sample)
            try:
                encoded = encode(self.tokenizer, record.conversation, TEMPLATE, True)
                check_context(encoded, self.num_image_tokens, self.model_max_length)
            except DataError as error:
                broken[f"sample {record.sample_id}"] = error.reason
                continue
            samples.append(
                Sample(
                    input_ids=encoded.input_ids,
                    labels=encoded.labels,
                    pixel_values=torch.empty(0),
                    sample_id=record.sample_id,
                )
            )
        return Item(pixels_3HW, samples, broken)
