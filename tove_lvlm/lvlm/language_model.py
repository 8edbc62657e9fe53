"""Whether a language model can stand in a LLaVA model of transformers and learns what it is taught.

LLaVA's shell has the decoder and one linear output layer, and the v1 conversation ends answers with `</s>`. A family
that has more (a bias, a scale of its logits, a projection) or another end would train to the end without a word, and
then be another model when it is loaded. Our choice: Llama's kind is supported, others are refused before training.
"""

from typing import Any

import torch
from transformers import AutoModel, PreTrainedModel

from ..config import ConfigError
from ..storage.files import first_names
from .build import without_zero3_init

END = "</s>"
"""Ends an answer in LLaVA's v1 conversation."""
_SUPPORTED = "supported are language models of Llama's kind, such as Vicuna"
_TESTED = ("llama",)
"""Types whose logits are known to be those of the decoder and the output layer, so that none are computed here."""


def check_language_model(llm: PreTrainedModel, tokenizer: Any, where: str) -> None:
    """Refuse a language model that would train wrongly or could not be loaded again.

    Args:
        llm: With its weights, as it came from its folder.
        tokenizer: Its own.
        where: For messages.

    Raises:
        ConfigError: Says what differs.
    """
    kind = f"{where} (`{llm.config.model_type}`)"
    ends = tokenizer.encode(END, add_special_tokens=False)
    if ends != [tokenizer.eos_token_id]:
        raise ConfigError(
            f"{kind} ends its answers with `{tokenizer.eos_token}`, and LLaVA's v1 conversation with `{END}`, which "
            f"its tokenizer reads as {len(ends)} tokens of text: it would never learn to stop; {_SUPPORTED}"
        )
    if problem := _other_weights(llm) or _other_logits(llm):
        raise ConfigError(f"{kind} {problem}; {_SUPPORTED}")


def _other_weights(llm: PreTrainedModel) -> str | None:
    """What of it LLaVA's shell has no place for, or asks for in vain."""
    with without_zero3_init(), torch.device("meta"):
        expected = {*AutoModel.from_config(llm.config).state_dict(), "lm_head.weight"}
    own = {*_decoder(llm).state_dict(), *(f"lm_head.{name}" for name in llm.get_output_embeddings().state_dict())}
    if own == expected:
        return None
    return f"has other weights than a LLaVA model would be loaded with ({first_names(own ^ expected)})"


@torch.no_grad()
def _other_logits(llm: PreTrainedModel) -> str | None:
    """Whether its logits are more than its output layer over its decoder, as with Granite's and Cohere's scaling."""
    partitioned = any(hasattr(parameter, "ds_id") for parameter in llm.parameters())  # ZeRO-3: nothing to compute with
    if llm.config.model_type in _TESTED or partitioned:
        return None
    ids_BT = torch.arange(1, 4, device=llm.device)[None]
    own_BTV = llm(input_ids=ids_BT).logits.float()
    plain_BTV = llm.get_output_embeddings()(_decoder(llm)(input_ids=ids_BT).last_hidden_state).float()
    far = (own_BTV - plain_BTV).abs().max().item() / own_BTV.abs().max().clamp_min(1e-6).item()
    return f"scales its logits, which LLaVA does not (they differ by {far:.1%})" if far > 0.02 else None


def _decoder(llm: PreTrainedModel) -> Any:
    return llm.get_decoder()
