"""Image augmentation for caption pre-training: a random crop, and a flip where the text allows one.

The ranges are Prismer's but for its crops that reach beyond the picture. A flip turns left into right: it is left out
where the text has one of these words (as a word or the beginning of one: `left-hand`, `rightmost`), east or west, or a
quotation, since written words do not survive it.
"""

import re

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision import transforms

SCALE = (0.5, 1.0)
"""Share of the picture's area that a crop has."""
_SIDE = re.compile(r"\b(left|right|east|west|clockwise|anticlockwise|counterclockwise)|[\"\u201c\u201d]", re.IGNORECASE)


def names_a_side(text: str) -> bool:
    """Whether a text may be wrong of the mirrored picture."""
    return _SIDE.search(text) is not None


def augment(image: Image.Image, text: str, *seed: int) -> Image.Image:
    """A crop of the picture of its own aspect ratio's range, mirrored every second time where the text allows it.

    Args:
        image: RGB.
        text: All that is said about it.
        *seed: What the draw depends on, and nothing else.
    """
    state = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(state >> np.uint64(1)))
        top, left, height, width = transforms.RandomResizedCrop.get_params(image, list(SCALE), [3 / 4, 4 / 3])
        flipped = bool(torch.rand(()) < 0.5)
    crop = image.crop((left, top, left + width, top + height))
    return ImageOps.mirror(crop) if flipped and not names_a_side(text) else crop
