"""The image processor that is saved with a model gives the pixels that the model was trained on.

LLaVA pads an image to a square before the image processor sees it (`image_aspect_ratio: pad`); whoever loads the model
with stock transformers knows only the processor, so the processor pads.
"""

import logging
from pathlib import Path
from typing import Any

from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from ..config import UserError
from ..data.images import ASPECT_RATIOS, TRANSPARENCIES

logger = logging.getLogger(__name__)


def as_trained(image_processor: Any, image_aspect_ratio: str, transparency: str, where: str | Path = "data") -> Any:
    """A copy of an image processor that brings images to RGB and to a square as training did.

    Args:
        image_processor: The tower's, LLaVA's or CLIP's, which cannot pad: with `pad` LLaVA's takes its place.
        image_aspect_ratio: `square` (cut the middle out) or `pad` (fill up with the mean colour).
        transparency: `white` or `ignore`, see `data.images.flatten`; `to_pixels` goes by it. Stock transformers puts
            every transparent image on white.
        where: What says so, for messages.

    Returns:
        Its `preprocess` gives what `to_pixels(image, image_processor, image_aspect_ratio)` does.

    Raises:
        UserError: There is no such aspect ratio or transparency.
    """
    for key, value, known in (
        ("image_aspect_ratio", image_aspect_ratio, ASPECT_RATIOS),
        ("transparency", transparency, TRANSPARENCIES),
    ):
        if value not in known:
            raise UserError(f"{where}: `{key}` is {value!r:.60}; expected {' or '.join(known)}")
    pad = image_aspect_ratio == "pad"
    kind = type(image_processor)
    fields = image_processor.to_dict() | {"transparency": transparency}
    if issubclass(kind, LlavaImageProcessorPil):  # the tower's is one
        return kind.from_dict(fields | {"do_pad": pad})
    if pad and issubclass(kind, CLIPImageProcessorPil):
        return LlavaImageProcessorPil.from_dict(fields | {"do_pad": True})
    if pad:
        logger.warning(
            "%s cannot pad an image to a square: pad by yourself where you use this model with other tools",
            kind.__name__,
        )
    return kind.from_dict(fields)
