"""What `salesforce-lavis` 1.0.2 needs from transformers 4.26 and transformers 5 no longer has.

Two kinds, and neither changes transformers for anybody else:

* names that LAVIS's modules import: they are lent to transformers while `import lavis` runs and taken back after it, as
  LAVIS's modules then hold their own references;
* what LAVIS's copies of BERT, OPT and T5 expect of `PreTrainedModel`: it is given to LAVIS's own BLIP-2 classes, not to
  `PreTrainedModel`. LAVIS's older families (BLIP, ALBEF, ...) are imported and left as they are.

What is there already is not touched.

See docs/hosts.md, "LAVIS under transformers 5".
"""

import contextlib
import logging
import sys
from types import ModuleType
from typing import Any

from transformers import GenerationMixin, PreTrainedModel

from ...registry import require
from .. import old_transformers
from . import generation

logger = logging.getLogger(__name__)

_BLIP2 = "lavis.models.blip2_models."
# Weights that an older transformers tied by itself because the class has output embeddings: target -> source.
_BERT_TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
_TIED = {
    "OPTForCausalLM": {"lm_head.weight": "model.decoder.embed_tokens.weight"},
    "BertLMHeadModel": _BERT_TIED,
    "BertForMaskedLM": _BERT_TIED,
    "T5ForConditionalGeneration": {"lm_head.weight": "shared.weight"},
}


def import_lavis() -> tuple[ModuleType, list[str]]:
    """Import LAVIS under the transformers that is installed.

    Returns:
        The module `lavis` and the names that had to be put back, sorted; empty when none was missing or this has
        already been done.

    Raises:
        ImportError: LAVIS, or a package that it needs, is not installed.
    """
    nothing: list[str] = []
    lending: contextlib.AbstractContextManager[list[str]] = contextlib.nullcontext(nothing)
    if "lavis" not in sys.modules:
        lending = old_transformers.lent_names()
    with lending as lent:
        lavis = require("lavis", extra="lavis")
    names = sorted({*lent, *repair_classes()})
    if names:
        logger.info("put back for LAVIS, from older transformers: %s", ", ".join(names))
    return lavis, names


def repair_classes() -> list[str]:
    """Give LAVIS's BLIP-2 model classes what `PreTrainedModel` no longer has. Idempotent.

    Returns:
        What was given, as `module.Class.name`, only what was missing.
    """
    repaired = []
    for cls in _own_classes(PreTrainedModel):
        for name in ("get_extended_attention_mask", "get_head_mask", "invert_attention_mask"):
            repaired += _give(cls, name, getattr(old_transformers, name))
        repaired += _repair_tying(cls)
        repaired += _repair_init_weights(cls)
        repaired += _repair_position_ids(cls)
        repaired += _repair_t5_scale(cls)
        if "prepare_inputs_for_generation" in cls.__dict__ and not issubclass(cls, GenerationMixin):
            cls.__bases__ = (*cls.__bases__, GenerationMixin)
            generation.adapt(cls)
            repaired.append(f"{cls.__module__}.{cls.__name__}.generate")
    return repaired


def _own_classes(root: type) -> list[type]:
    """The subclasses of `root` in LAVIS's BLIP-2, parents first."""
    classes: list[type] = []
    direct: list[type] = root.__subclasses__()
    for cls in direct:
        if cls.__module__.startswith(_BLIP2):
            classes.append(cls)
        classes += [sub for sub in _own_classes(cls) if sub not in classes]
    return classes


def _give(cls: type, name: str, value: Any) -> list[str]:
    if hasattr(cls, name):
        return []
    setattr(cls, name, value)
    return [f"{cls.__module__}.{cls.__name__}.{name}"]


def _repair_tying(cls: Any) -> list[str]:
    """transformers 5 ties what the class names, and no more whatever `get_output_embeddings` returns."""
    if cls.__name__ not in _TIED or cls.__dict__.get("_tied_weights_keys") == _TIED[cls.__name__]:
        return []
    cls._tied_weights_keys = dict(_TIED[cls.__name__])
    if _TIED[cls.__name__] is _BERT_TIED:
        cls.set_output_embeddings = _set_output_embeddings
    return [f"{cls.__module__}.{cls.__name__}._tied_weights_keys"]


def _set_output_embeddings(self, new_embeddings) -> None:
    """Of BERT's heads: after the vocabulary has grown the bias is still one parameter with two names."""
    self.cls.predictions.decoder = new_embeddings
    self.cls.predictions.bias = new_embeddings.bias


def _repair_init_weights(cls: Any) -> list[str]:
    """LAVIS's BERT ends its constructor with `init_weights` where `post_init` is due by now."""
    if PreTrainedModel not in cls.__bases__ or "init_weights" in cls.__dict__:
        return []

    def init_weights(self):
        if hasattr(self, "all_tied_weights_keys"):  # `post_init` is running, or has run
            PreTrainedModel.init_weights(self)
        else:
            self.post_init()

    cls.init_weights = init_weights
    return [f"{cls.__module__}.{cls.__name__}.init_weights"]


def _repair_t5_scale(cls: Any) -> list[str]:
    """T5's config of transformers 5 keeps in `scale_decoder_outputs` what `tie_word_embeddings` said (FLAN-T5: no)."""
    original = cls.__init__
    if cls.__name__ != "T5ForConditionalGeneration" or hasattr(original, "_tove_original"):
        return []

    def __init__(self, config):
        original(self, config)  # ties by the checkpoint: a `lm_head` that is there and differs stays
        config.tie_word_embeddings = getattr(config, "scale_decoder_outputs", config.tie_word_embeddings)

    marked: Any = __init__
    marked._tove_original = original
    cls.__init__ = marked
    return [f"{cls.__module__}.{cls.__name__}.__init__"]


def _repair_position_ids(cls: Any) -> list[str]:
    """transformers 5 builds on the meta device and leaves a buffer that the checkpoint lacks without values."""
    original = cls.__dict__.get("_init_weights")
    if original is None or hasattr(original, "_tove_original"):
        return []

    def _init_weights(self, module):
        original(self, module)
        ids = module._buffers.get("position_ids")
        if ids is not None:
            ids.copy_(ids.new_ones(ids.shape).cumsum(-1) - 1)

    marked: Any = _init_weights
    marked._tove_original = original
    cls._init_weights = marked
    return [f"{cls.__module__}.{cls.__name__}._init_weights"]
