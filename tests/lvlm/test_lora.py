"""LoRA: where it goes, what is written, and that merging changes nothing but the form."""

import torch

from helpers import tiny_towers
from helpers.tiny_checkpoints import add_awake_lora
from tove_lvlm.checkpoints import load_model
from tove_lvlm.checkpoints.adapter import save_adapter
from tove_lvlm.checkpoints.merged import save_merged
from tove_lvlm.checkpoints.model_info import make_model_info
from tove_lvlm.lvlm.lora import collect_merged
from tove_lvlm.zero import collect_trainable


def awake(model):
    return add_awake_lora(model, std=0.2, seed=5)


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


def inputs_of(model):
    config = model.config
    ids = torch.tensor([[1, *[config.image_token_id] * config.image_seq_length, 300, 310, 320]])
    return {"input_ids": ids, "pixel_values": tiny_towers.pixels(1)}


def test_lora_is_on_every_linear_of_the_language_model_and_nowhere_else(built):
    wrapped = awake(built[0])
    held = {name.split(".lora_")[0] for name, _ in wrapped.named_parameters() if ".lora_" in name}
    assert len(held) == 2 * 7
    assert all(name.startswith("base_model.model.model.language_model.layers.") for name in held)
    trained = {name for name, p in wrapped.named_parameters() if p.requires_grad and ".lora_" not in name}
    assert all(".multi_modal_projector." in name or ".tove_fusion." in name for name in trained)


def test_merging_is_w_plus_scaled_ba(built):
    wrapped = awake(built[0])
    merged = collect_merged(wrapped)
    layer = wrapped.base_model.model.model.language_model.layers[1].mlp.down_proj
    expected = layer.base_layer.weight + 8 / 4 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(merged["model.language_model.layers.1.mlp.down_proj.weight"], expected)
    assert not any("lora" in name or "base_layer" in name for name in merged)


def test_merged_folder_loads_as_an_ordinary_model_with_the_same_logits(built, tmp_path):
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

    model, processor = built
    wrapped = awake(model)
    inputs = inputs_of(model)
    before = logits(wrapped, inputs)
    save_merged(tmp_path, collect_merged(wrapped), wrapped, processor)
    loaded, report = LlavaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    torch.testing.assert_close(logits(loaded.eval(), inputs), before, atol=1e-5, rtol=1e-4)
    again = LlavaProcessor.from_pretrained(tmp_path)
    assert again.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert again.chat_template == processor.chat_template
    frozen = model.model.vision_tower.clip.state_dict()
    assert all(torch.equal(v, frozen[k]) for k, v in loaded.model.vision_tower.clip.state_dict().items())


def test_adapter_folder_is_read_by_peft_and_by_chat(built, llm, tiny_tower_yaml, tmp_path):
    import peft

    from tove_lvlm.checkpoints.from_config import build_lvlm
    from tove_lvlm.config.model import ModelConfig

    model, processor = built
    wrapped = awake(model)
    inputs = inputs_of(model)
    before = logits(wrapped, inputs)
    block = {"llm": str(llm), "tower": str(tiny_tower_yaml)}
    about = make_model_info(block, wrapped, "square")
    save_adapter(tmp_path, wrapped, collect_trainable(wrapped), about)
    processor.save_pretrained(tmp_path)
    base, _ = build_lvlm(ModelConfig(**block))
    read = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    torch.testing.assert_close(logits(read, inputs), before, atol=1e-5, rtol=1e-4)
    loaded = load_model(tmp_path)
    assert loaded.image_aspect_ratio == "square"
    assert not any("lora" in name for name, _ in loaded.model.named_parameters())
    torch.testing.assert_close(logits(loaded.model, inputs), before, atol=1e-5, rtol=1e-4)
