"""The tower's image processor: LLaVA's, which is CLIP's and can pad, under the tower's own name.

Every host stacks one (3, H, W) tensor for each image, so there is one normalisation here; what each expert wants is
made from it inside the tower.

See docs/hosts.md, "transformers".
"""

from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from .configuration import ToVEVisionConfig


class ToVEImageProcessor(LlavaImageProcessorPil):
    """Resize the shorter side, crop the centre, rescale, normalise: `pixel_values` (B, 3, S, S).

    With `do_pad` images are first filled up to a square with the mean colour: LLaVA's `image_aspect_ratio: pad`.
    Has what LLaVA asks of it: `preprocess`, `image_mean`, `image_std`, `size["shortest_edge"]`, `crop_size["height"]`.
    """

    @classmethod
    def for_tower(cls, config: ToVEVisionConfig) -> "ToVEImageProcessor":
        """The processor whose pixels the tower of this config expects."""
        side = config.image_size
        return cls(
            size={"shortest_edge": side},
            crop_size={"height": side, "width": side},
            image_mean=list(config.image_mean),
            image_std=list(config.image_std),
        )


AutoImageProcessor.register(ToVEVisionConfig, image_processor_classes={"pil": ToVEImageProcessor}, exist_ok=True)
