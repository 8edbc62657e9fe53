"""LAVIS image processors that give what the tower expects: `tove_image_train`, `tove_image_eval`.

LAVIS's own BLIP-2 transforms with the tower's size, mean and std, so that nobody has to write these down twice. Which
tower: that of the run's `model` block, or the processor's own key `tower`.

See docs/hosts.md, "LAVIS".
"""

from typing import Any

from omegaconf import OmegaConf
from torchvision.transforms import Compose, RandomHorizontalFlip

from ...config import UserError
from ...tower.configuration import ToVEVisionConfig
from ..names import is_tove, read_tower_config, tower_path
from .model_block import ARCHITECTURES, read_block, tower_config


def register() -> None:
    """File both under their names in LAVIS's registry. Idempotent."""
    from lavis.common.registry import registry
    from lavis.processors.blip_processors import Blip2ImageTrainProcessor, BlipImageEvalProcessor

    if registry.get_processor_class("tove_image_eval") is not None:
        return

    @registry.register_processor("tove_image_eval")
    class ToVEImageEvalProcessor(BlipImageEvalProcessor):
        """The whole image, resized to (3, S, S)."""

        @classmethod
        def from_config(cls, cfg=None):
            return cls(**_settings(cfg or OmegaConf.create()))

    @registry.register_processor("tove_image_train")
    class ToVEImageTrainProcessor(Blip2ImageTrainProcessor):
        """A random crop of at least `min_scale` of the image; mirrored half the time only with `flip: True`.

        BLIP-2 always mirrors; captions that say left and right are wrong then.
        """

        @classmethod
        def from_config(cls, cfg=None):
            cfg = cfg or OmegaConf.create()
            scales = {"min_scale": cfg.get("min_scale", 0.5), "max_scale": cfg.get("max_scale", 1.0)}
            processor = cls(**_settings(cfg), **scales)
            if not cfg.get("flip", False):
                steps = [step for step in processor.transform.transforms if not isinstance(step, RandomHorizontalFlip)]
                processor.transform = Compose(steps)
            return processor


def _settings(cfg: Any) -> dict[str, Any]:
    """Size, mean and std of the tower; what the processor's own block states must agree."""
    tower = _tower_config(cfg.get("tower"))
    settings = {"image_size": tower.image_size, "mean": tower.image_mean, "std": tower.image_std}
    for key, value in settings.items():
        raw = cfg.get(key)
        if raw is not None and _plain(raw) != _plain(value):
            raise UserError(f"vis_processor `{key}` is {_plain(raw)} and the tower has {_plain(value)}; leave it out")
    return settings


def _plain(value: Any) -> Any:
    return value if isinstance(value, int) else [round(float(number), 6) for number in value]


def _tower_config(name: str | None) -> ToVEVisionConfig:
    key = "vis_processor.tower"
    if name is None:
        from lavis.common.registry import registry

        run = registry.get("configuration", no_warning=True)
        model = getattr(run, "config", {}).get("model", {})
        if model.get("arch") in ARCHITECTURES:
            return tower_config(read_block(model))
        key, name = "model.vit_model", model.get("vit_model")
        if not is_tove(name):
            raise UserError(
                f"tove_image_train and tove_image_eval take their size from the tower, and `{key}` is `{name}`; write "
                "`tower: tove:PATH` in the processor's block"
            )
    return read_tower_config(tower_path(name if is_tove(name) else f"tove:{name}", key))
