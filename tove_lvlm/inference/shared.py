"""Pictures that several questions are about: what a model makes of one is made once and kept with it.

Who asks holds the `SharedPicture` and drops it after the last question, so the memory is the asker's to bound:
`Responder.picture_bytes` says what one takes, `plan` how many questions come while it is there.
"""

import hashlib
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from PIL import Image

from .batching import Picture

KEEP_BYTES = 4 << 30
"""What pictures that wait for their next question may take together, unless the caller says otherwise: 4 GiB. In
bfloat16 a picture of 336 pixels takes 0.32 GB of a 7B LLaVA's attention cache and 0.5 GB of a 13B one's."""


class SharedPicture:
    """A picture as several questions are given it.

    Args:
        pixels_3HW: Not changed afterwards.
    """

    def __init__(self, pixels_3HW: torch.Tensor):
        self.pixels_3HW = pixels_3HW
        self.kept: Any = None
        """What the one model that is asked has made of it: an attention cache of one row, or the tower's tokens. It
        stands for the model as it was then: a tower that loses an expert needs new pictures."""


Pixels = torch.Tensor | SharedPicture
PixelsAbout = Pixels | Sequence[Pixels] | None
"""Those of what a question is about: one picture, several in the order in which it speaks of them, or none."""


def pixel_list(about: PixelsAbout) -> list[Pixels]:
    """One for each picture that a question is about."""
    if about is None:
        return []
    return [about] if isinstance(about, torch.Tensor | SharedPicture) else list(about)


def pixels_of(one: Pixels) -> torch.Tensor:
    """(3, H, W)."""
    return one.pixels_3HW if isinstance(one, SharedPicture) else one


def share_repeated(pixels: Sequence[Pixels]) -> list[Pixels]:
    """The same, with one `SharedPicture` in all places of a tensor that stands there more than once."""
    times = Counter(id(one) for one in pixels)
    shared: dict[int, SharedPicture] = {}
    return [
        shared.setdefault(id(one), SharedPicture(one)) if isinstance(one, torch.Tensor) and times[id(one)] > 1 else one
        for one in pixels
    ]


def distinct(pictures: Sequence[SharedPicture]) -> list[SharedPicture]:
    """Each picture once, in the order of the first places."""
    return list({id(one): one for one in pictures}.values())


def picture_key(image: Picture | None) -> Hashable:
    """Equal for equal pictures: a file's path, or what an opened image shows. None for none."""
    if image is None:
        return None
    if not isinstance(image, Image.Image):
        return str(image)
    digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()  # reads an image that was opened only
    colors = tuple(image.getpalette() or ()), repr(image.info.get("transparency"))
    return image.mode, image.size, digest, colors
