"""The image processor that is saved with a model gives the pixels that the model was trained on.

LLaVA pads an image to a square before the image processor sees it (`image_aspect_ratio: pad`); whoever loads the model
with stock transformers knows only the processor, so the processor pads.
"""

import logging
from typing import Any

from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from ..data.images import check_aspect_ratio

logger = logging.getLogger(__name__)


def with_aspect_ratio(image_processor: Any, aspect_ratio: str) -> Any:
    """A copy of an image processor that brings images to a square as training did.

    Args:
        image_processor: The tower's, LLaVA's or CLIP's, which cannot pad: with `pad` LLaVA's takes its place.
        aspect_ratio: `square` (cut the middle out) or `pad` (fill up with the mean colour).

    Returns:
        Its `preprocess` gives what `to_pixels(image, image_processor, aspect_ratio)` does.

    Raises:
        ValueError: Unknown aspect ratio.
    """
    check_aspect_ratio(aspect_ratio)
    pad = aspect_ratio == "pad"
    fields = image_processor.to_dict() | {"do_pad": pad}
    if isinstance(image_processor, LlavaImageProcessorPil):  # the tower's is one
        return type(image_processor).from_dict(fields)
    if not pad:
        return image_processor
    if not isinstance(image_processor, CLIPImageProcessorPil):
        logger.warning(
            "%s cannot pad an image to a square: pad by yourself where you use this model with other tools",
            type(image_processor).__name__,
        )
        return image_processor
    return LlavaImageProcessorPil.from_dict(fields)
