"""Families that would train to the end and be another model afterwards are refused first."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CohereConfig,
    GraniteConfig,
    MistralConfig,
    OPTConfig,
    PhiConfig,
    Qwen2Config,
)

from tove_lvlm.checkpoints.from_config import build_lvlm
from tove_lvlm.config import ConfigError
from tove_lvlm.config.model import ModelConfig

SIZES = {
    "vocab_size": 400,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GATED = SIZES | {"intermediate_size": 64, "num_key_value_heads": 2, "initializer_range": 0.2}
OTHERS = {
    "opt": (OPTConfig(**SIZES, ffn_dim=64, word_embed_proj_dim=32), r"has other weights .*decoder"),
    "phi": (PhiConfig(**SIZES, intermediate_size=64), r"has other weights .*lm_head.bias"),
    "granite": (GraniteConfig(**GATED, logits_scaling=8.0), r"scales its logits"),
    "cohere": (CohereConfig(**GATED, logit_scale=0.0625, tie_word_embeddings=False), r"scales its logits"),
}


@pytest.fixture
def save(tmp_path, llm):
    def save(config, **changes):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "llm")
        tokenizer = AutoTokenizer.from_pretrained(llm)
        for name, value in changes.items():
            setattr(tokenizer, name, value)
        tokenizer.save_pretrained(tmp_path / "llm")
        return tmp_path / "llm"

    return save


def build(folder, tiny_tower_yaml):
    return build_lvlm(ModelConfig(llm=str(folder), vision_tower="tove", tower=str(tiny_tower_yaml)))


@pytest.mark.parametrize("name", OTHERS)
def test_other_families_are_refused(save, tiny_tower_yaml, name):
    config, message = OTHERS[name]
    with pytest.raises(
        ConfigError, match=rf"`model.llm`: .*\(`{name}`\) {message}.*supported are language models of Llama"
    ):
        build(save(config), tiny_tower_yaml)


def test_another_end_is_refused(save, tiny_tower_yaml):
    """As Qwen2's and Llama 3's, which read `</s>` as text."""
    folder = save(Qwen2Config(**GATED), eos_token="<unk>")
    with pytest.raises(ConfigError, match="ends its answers with `<unk>`, and LLaVA's v1 conversation with `</s>`"):
        build(folder, tiny_tower_yaml)


def test_a_family_of_llamas_kind_is_taken(save, tiny_tower_yaml):
    folder = save(MistralConfig(**GATED))
    model, _ = build(folder, tiny_tower_yaml)
    alone = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids_BT = torch.tensor([[1, 300, 310, 5]])
    with torch.no_grad():
        ours, own = model.eval()(input_ids=ids_BT).logits, alone(input_ids=ids_BT).logits
    assert torch.allclose(ours[..., :400], own, atol=1e-5)
