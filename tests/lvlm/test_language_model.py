"""A language model of another family is the same model in a LLaVA model, or is refused before training."""

import json
import logging

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlavaForConditionalGeneration

from helpers.tiny_families import FAMILIES, make_family
from tove_lvlm.checkpoints.from_config import build_lvlm
from tove_lvlm.config import ConfigError
from tove_lvlm.config.model import LoraConfig, ModelConfig
from tove_lvlm.data.conversations import end_ids
from tove_lvlm.lvlm.build import load_tokenizer
from tove_lvlm.lvlm.language_model import _TRIED
from tove_lvlm.lvlm.lora import add_lora, collect_merged
from tove_lvlm.lvlm.parts import decoder_layers


def build(folder, tiny_tower_yaml, **options):
    return build_lvlm(ModelConfig(llm=str(folder), vision_tower="tove", tower=str(tiny_tower_yaml), **options))


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_the_familys_own_also_after_saving(tmp_path, tiny_tower_yaml, name):
    folder = make_family(tmp_path / "llm", name)
    alone = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids_BT = torch.tensor([tokenizer.encode("what is red ? yes or no")])
    own_BTV = alone(input_ids=ids_BT).logits
    model, processor = build(folder, tiny_tower_yaml)
    ours_BTV = model.eval()(input_ids=ids_BT).logits
    torch.testing.assert_close(ours_BTV[..., : own_BTV.shape[-1]], own_BTV, atol=2e-5, rtol=1e-4)
    assert len(decoder_layers(model)) == model.config.text_config.num_hidden_layers
    assert model.config.image_token_id == processor.tokenizer.convert_tokens_to_ids("<image>") == len(tokenizer)
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    read = LlavaForConditionalGeneration.from_pretrained(tmp_path / "saved").eval()
    assert torch.equal(read(input_ids=ids_BT).logits, ours_BTV)
    ends = read.generation_config.eos_token_id
    assert (ends if isinstance(ends, list) else [ends]) == end_ids(processor.tokenizer)


@torch.no_grad()
@pytest.mark.parametrize("name", ["gpt2", "opt", "qwen3", "cohere"])
def test_lora_reaches_every_layer_and_merges(tmp_path, tiny_tower_yaml, name):
    """GPT-2's linear layers have their weights the other way round."""
    model, _ = build(make_family(tmp_path / "llm", name), tiny_tower_yaml)
    ids_BT = torch.tensor([[5, 9, 4, 30]])
    wrapped = add_lora(model, LoraConfig(lora_enable=True, lora_r=2))
    names = {n.split(".lora_B")[0] for n, _ in wrapped.named_parameters() if ".lora_B" in n}
    assert len(names) >= 2 * 4, "attention and mlp of both layers"
    torch.manual_seed(1)
    for parameter_name, parameter in wrapped.named_parameters():
        if "lora_B" in parameter_name:
            parameter.normal_(std=0.1)
    tuned_BTV = wrapped.eval()(input_ids=ids_BT).logits
    merged = collect_merged(wrapped)
    plain, _ = build(tmp_path / "llm", tiny_tower_yaml)
    plain.load_state_dict(merged, strict=False)
    torch.testing.assert_close(plain.eval()(input_ids=ids_BT).logits, tuned_BTV, atol=1e-5, rtol=1e-4)


def test_a_mixtures_experts_are_said_to_be_out_of_reach(tmp_path, tiny_tower_yaml, caplog):
    model, _ = build(make_family(tmp_path / "llm", "qwen3_moe"), tiny_tower_yaml)
    with caplog.at_level(logging.WARNING):
        add_lora(model, LoraConfig(lora_enable=True, lora_r=2))
    (line,) = [record.message for record in caplog.records if "LoRA does not reach" in record.message]
    assert "down_proj" in line
    assert "% of its weights" in line


OTHERS = {
    "phi": ({"intermediate_size": 64}, r"has other weights .*lm_head.bias"),
    "gemma2": ({"head_dim": 16, "query_pre_attn_scalar": 16}, r"caps its logits at 30"),
    "opt": ({"word_embed_proj_dim": 16}, r"has embeddings of width 16 and hidden states of 32"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_family_that_llava_cannot_hold_is_refused(tmp_path, tiny_tower_yaml, monkeypatch, name):
    from helpers.tiny_families import Family

    fields, message = OTHERS[name]
    sizes = FAMILIES["opt"].sizes if name == "opt" else FAMILIES["llama"].sizes
    monkeypatch.setitem(FAMILIES, name, Family("completion", fields, sizes))
    folder = make_family(tmp_path / "llm", name)
    with pytest.raises(ConfigError, match=rf"`model.llm`: .*\(`{name}`\) {message}"):
        build(folder, tiny_tower_yaml)


def test_what_is_no_language_model_is_refused(tmp_path, llm, tiny_tower_yaml):
    from transformers import ViTConfig

    tokenizer = AutoTokenizer.from_pretrained(llm)
    tokenizer.save_pretrained(tmp_path)
    ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"`model.llm`: .* is no causal language model of transformers"):
        build(tmp_path, tiny_tower_yaml)


# ---- the conversation ----


def test_v1_with_another_end_is_refused_and_says_what_to_do(tmp_path, tiny_tower_yaml):
    """As a base model's whose tokenizer reads `</s>` as text and has no chat template."""
    folder = make_family(tmp_path / "llm", "qwen2")
    with pytest.raises(ConfigError, match=r"ends its answers with `<eos>`, .* would never learn to stop"):
        build(folder, tiny_tower_yaml, chat_template="v1")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match=r"take the instruct model, .*or name a Jinja file in `model.chat_template`"):
        build(folder, tiny_tower_yaml)


def test_a_template_of_the_users_own(tmp_path, tiny_tower_yaml):
    from helpers.chat_tokenizers import COMPLETION

    folder = make_family(tmp_path / "llm", "qwen2")
    (tmp_path / "own.jinja").write_text(COMPLETION)
    _, processor = build(folder, tiny_tower_yaml, chat_template=str(tmp_path / "own.jinja"))
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Who?"}]}]
    said = processor.apply_chat_template(message, add_generation_prompt=True)
    assert said == "Question: <image>\nWho?\nAnswer: "
    with pytest.raises(ConfigError, match=r"`model.chat_template` is `none.jinja`; expected `v1` or a Jinja file"):
        build(folder, tiny_tower_yaml, chat_template="none.jinja")


def test_v1_stays_what_vicuna_is_trained_with(built):
    _, processor = built
    assert processor.chat_template == processor.tokenizer.chat_template
    assert "USER: " in processor.chat_template


def test_a_family_that_nobody_has_tried_is_named(tmp_path, tiny_tower_yaml, monkeypatch, caplog):
    from helpers.tiny_families import Family

    monkeypatch.setitem(FAMILIES, "olmo2", Family("completion", {}))
    folder = make_family(tmp_path / "llm", "olmo2")
    with caplog.at_level(logging.WARNING):
        build(folder, tiny_tower_yaml)
    assert any("(`olmo2`)" in record.message and "has not been tried" in record.message for record in caplog.records)
    assert set(_TRIED) == FAMILIES.keys() - {"olmo2"}


def test_a_tokenizer_that_splits_the_image_token_is_refused(tmp_path):
    from helpers.chat_tokenizers import make_tokenizer

    tokenizer = make_tokenizer("completion", image=False)
    inner = json.loads(tokenizer.backend_tokenizer.to_str())
    inner["model"]["vocab"]["<image>"] = max(inner["model"]["vocab"].values()) + 1000
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(inner))
    with pytest.raises(ConfigError, match=r"has the token <image> and splits it into .*special=True"):
        load_tokenizer(str(tmp_path))
