"""Put the tower into LAVIS: `register()`.

One attribute of LAVIS's class is replaced, `Blip2Base.init_vision_encoder`, which every BLIP-2 architecture calls: a
class method in the wheel, a method on the main branch. Around the loading of checkpoints stands a check that names the
file, around a model's call the balance loss (balance.py); the model's answer to LAVIS's own names (`eva_clip_g`,
`clip_L`) is LAVIS's.

See docs/hosts.md, "LAVIS".
"""

import functools
import inspect
import logging
from importlib import metadata
from typing import Any

from ...config import UserError
from ..names import is_tove

logger = logging.getLogger(__name__)

_ARGUMENTS = ["model_name", "img_size", "drop_path_rate", "use_grad_checkpoint", "precision"]
_DONE = "_tove_original"


def register() -> list[str]:
    """Make LAVIS take `vit_model: tove:PATH` and know the architectures `tove_caption` and `tove_vqa`, the processors
    `tove_image_train` and `tove_image_eval` and the data sets `llava_caption` and `llava_vqa`.

    Idempotent. LAVIS is imported, with what it needs of an older transformers put back.

    Returns:
        The names that were put back, empty on a later call.

    Raises:
        ImportError: LAVIS is not installed.
        UserError: This LAVIS has no BLIP-2 whose vision encoder can be replaced.
    """
    from .compat import import_lavis

    lavis, names = import_lavis()
    from . import balance, bert, data, encoder_decoder, processors, vqa_data

    base = _blip2_base(lavis)
    if not hasattr(base, _DONE):
        setattr(base, _DONE, base.__dict__["init_vision_encoder"])
        _hook_vision_encoder(base)
        _hook_loading(base)
        balance.hook(base)
    bert.use_local_folder()
    processors.register()
    data.register()
    vqa_data.register()
    encoder_decoder.register()
    return names


def _blip2_base(lavis: Any) -> Any:
    """LAVIS's common parent of BLIP-2 models, after a look at what is to be replaced."""
    try:
        version = metadata.version("salesforce-lavis")
    except metadata.PackageNotFoundError:
        version = "a source checkout"
    base = getattr(getattr(lavis, "models", None), "Blip2Base", None)
    current = base.__dict__.get("init_vision_encoder") if base is not None else None
    function = getattr(current, "__func__", current)
    arguments = list(inspect.signature(function).parameters)[1:] if callable(function) else []
    original = getattr(base, _DONE, None) if base is not None else None
    if original is None and arguments != _ARGUMENTS:
        shown = f"takes {arguments}" if arguments else "is not there"
        raise UserError(
            f"this LAVIS ({version}) is not supported: Blip2Base.init_vision_encoder {shown}, expected "
            f"{_ARGUMENTS}; install salesforce-lavis 1.0.2 (or LAVIS's main branch of November 2024)"
        )
    return base


def _hook_vision_encoder(base: Any) -> None:
    """Replace the builder of the vision encoder, in the form that it has."""
    original = base.__dict__["init_vision_encoder"]
    function = getattr(original, "__func__", original)

    @functools.wraps(function)
    def init_vision_encoder(owner, model_name, img_size, drop_path_rate, use_grad_checkpoint, precision):
        if not is_tove(model_name):
            try:
                return function(owner, model_name, img_size, drop_path_rate, use_grad_checkpoint, precision)
            except AssertionError as error:  # LAVIS's answer to a name that it does not know
                raise UserError(f"`vit_model` is `{model_name}`: {error}, or `tove:PATH` with a ToVE tower") from error
        from lavis.models.blip2_models.blip2 import LayerNorm

        from .tower import build_encoder

        encoder = build_encoder(model_name, img_size, drop_path_rate, precision)
        if not isinstance(owner, type):
            owner.vit_name = model_name  # the main branch keeps it
        return encoder, LayerNorm(encoder.num_features)

    wrapped = classmethod(init_vision_encoder) if isinstance(original, classmethod) else init_vision_encoder
    base.init_vision_encoder = wrapped


def _hook_loading(base: Any) -> None:
    """Name the file in what the encoder says of a checkpoint; let `load_pretrained: False` mean what it says."""
    from lavis.runners import RunnerBase, RunnerIter

    from . import balance
    from .checks import naming_file

    base.load_checkpoint = naming_file(base.load_checkpoint, _is_ours)
    base.load_from_pretrained = naming_file(base.load_from_pretrained, _is_ours)
    for runner in (RunnerBase, RunnerIter):
        runner._load_checkpoint = naming_file(runner.__dict__["_load_checkpoint"], lambda self: _is_ours(self._model))
    from_config = base.load_checkpoint_from_config

    @functools.wraps(from_config)
    def load_checkpoint_from_config(self, cfg, **kwargs):
        if _is_ours(self):
            encoder = self.visual_encoder
            encoder.balance_loss_weight = balance.check_weight(cfg.get(balance.KEY, encoder.balance_loss_weight))
        # The wheel would fetch a published model here, whose Q-Former was trained on another encoder.
        if _is_ours(self) and not cfg.get("load_finetuned", True) and not cfg.get("load_pretrained", True):
            logger.info("load_pretrained: False, so the Q-Former starts from BERT and the tower from its source")
            return
        from_config(self, cfg, **kwargs)

    base.load_checkpoint_from_config = load_checkpoint_from_config


def _is_ours(model: Any) -> bool:
    from .tower import ToVEVisualEncoder

    return isinstance(getattr(model, "visual_encoder", None), ToVEVisualEncoder)
