"""A causal language model as a LLaVA model of transformers has it: a decoder, and one linear output layer over it.

A family that has more is brought to that form where it stays the same model: a factor of the logits (Granite, Cohere)
goes into the output layer, and one that is tied to an embedding which LLaVA does not find (GPT-2, OPT) becomes one of
its own. Anything else (a bias, capped logits) would train to the end without a word and then be another model when it
is loaded, and is refused before training. Our choice.

Shapes: B texts, T tokens, V vocabulary.
"""

import logging
import re
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from ..config import ConfigError
from ..sharding import gathered
from ..storage.files import first_names
from ..storage.pretrained import load_pretrained, read_pretrained
from .build import without_zero3_init
from .quantization import WHOLE, quantization_config

logger = logging.getLogger(__name__)

_TIED = "embed_tokens.weight"
"""The embedding that LLaVA ties its output layer to."""
_KNOWN = ("llama",)
"""Types whose logits are known to be those of the decoder and the output layer, so that none are computed here."""
_TRIED = (
    *("llama", "qwen2", "qwen3", "qwen3_moe", "mistral", "gemma", "gemma3_text", "phi3", "smollm3", "granite"),
    *("cohere", "opt", "gpt2"),
)
"""Types that the tests train, save, load and ask."""
_QUANTIZED = re.compile(r"\.(weight\..+|SCB|weight_format)$")
"""What bitsandbytes keeps beside a weight."""
_FACTORS = {"logits_scaling": -1, "logit_scale": 1}
"""Keys of a configuration that its logits are multiplied with, or divided by."""


def load_language_model(source: str, where: str, dtype: torch.dtype, bits: int = WHOLE) -> PreTrainedModel:
    """A language model that can stand in a LLaVA model, with its weights.

    Args:
        source: Folder or hub id.
        where: For messages.
        dtype: Of all weights that are not quantised.
        bits: In which its linear layers are held, see `quantization_config`.

    Raises:
        ConfigError: It cannot; says what it has.
        WeightsError: It cannot be read.
    """
    kind = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(read_pretrained(AutoConfig, source)), None)
    if kind is None:
        raise ConfigError(f"{where} is no causal language model of transformers")
    attention = "sdpa" if getattr(kind, "_supports_sdpa", False) else "eager"
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention}
    if quantization := quantization_config(bits, dtype):
        options["quantization_config"] = quantization
    llm = load_pretrained(AutoModelForCausalLM, source, where=where, **options)
    name = f"{where} (`{llm.config.model_type}`)"
    if problem := _other_weights(llm):
        raise ConfigError(f"{name} {problem}; a LLaVA model has a decoder and one output layer without a bias")
    _untie(llm)
    _take_factor(llm)
    if problem := _other_logits(llm):
        raise ConfigError(f"{name} {problem}; a LLaVA model's logits are its output layer over its decoder")
    if llm.config.model_type not in _TRIED:
        logger.warning(
            "%s has the form that a LLaVA model wants, but this family has not been tried; train a few steps and ask "
            "the result with `tove chat` before a long run",
            name,
        )
    return llm


def _other_weights(llm: PreTrainedModel) -> str | None:
    """What of it LLaVA's shell has no place for, or asks for in vain."""
    with without_zero3_init(), torch.device("meta"):
        expected = {*AutoModel.from_config(llm.config).state_dict(), "lm_head.weight"}
    own = {name for name in llm.base_model.state_dict() if not _QUANTIZED.search(name)}
    own |= {f"lm_head.{name}" for name in llm.get_output_embeddings().state_dict()}
    if own != expected:
        return f"has other weights than a LLaVA model would be loaded with ({first_names(own ^ expected)})"
    width = cast(nn.Embedding, llm.get_input_embeddings()).embedding_dim
    if width != llm.config.hidden_size:
        return f"has embeddings of width {width} and hidden states of {llm.config.hidden_size}, and LLaVA has one width"
    return None


def _untie(llm: PreTrainedModel) -> None:
    """Give the output layer weights of its own where it shares those of an embedding that LLaVA does not know."""
    head, config = cast(nn.Linear, llm.get_output_embeddings()), llm.config
    if not config.tie_word_embeddings or _TIED in llm.base_model.state_dict():
        return
    _own_weight(llm, head)
    logger.info("the output layer of `%s` is no longer tied to its embedding, which LLaVA cannot", config.model_type)


def _own_weight(llm: PreTrainedModel, head: nn.Linear) -> None:
    with gathered([cast(nn.Parameter, head.weight)]):
        head.weight = nn.Parameter(head.weight.detach().clone())
    llm.config.tie_word_embeddings = False


def _take_factor(llm: PreTrainedModel) -> None:
    """Multiply the output layer by what its logits are multiplied with. Powers of two, as all have, change no digit."""
    head, config = cast(nn.Linear, llm.get_output_embeddings()), llm.config
    for key, power in _FACTORS.items():
        factor = getattr(config, key, None)
        if isinstance(factor, float | int) and factor not in (0, 1):
            if config.tie_word_embeddings:
                _own_weight(llm, head)
            with gathered([cast(nn.Parameter, head.weight)], write=True), torch.no_grad():
                head.weight *= factor**power
            setattr(config, key, 1.0)
            if hasattr(llm, key):  # Cohere keeps a copy
                setattr(llm, key, 1.0)


@torch.no_grad()
def _other_logits(llm: PreTrainedModel) -> str | None:
    """Whether its logits are more than its output layer over its decoder."""
    if (cap := getattr(llm.config, "final_logit_softcapping", None)) is not None:
        return f"caps its logits at {cap}"
    partitioned = any(hasattr(parameter, "ds_id") for parameter in llm.parameters())  # ZeRO-3: nothing to compute with
    if llm.config.model_type in _KNOWN or partitioned:
        return None
    ids_BT = torch.arange(1, 4, device=llm.device)[None]
    own_BTV = llm(input_ids=ids_BT).logits.float()
    hidden = cast(Any, llm.base_model)(input_ids=ids_BT).last_hidden_state
    plain_BTV = llm.get_output_embeddings()(hidden).float()
    far = (own_BTV - plain_BTV).abs().max().item() / own_BTV.abs().max().clamp_min(1e-6).item()
    return f"does more to its logits, which differ by {far:.1%}" if far > 0.02 else None
