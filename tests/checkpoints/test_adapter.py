"""An adapter's folder is read by peft and by this package."""

import torch

from helpers.tiny_checkpoints import add_awake_lora, image_inputs, logits
from tove_lvlm.checkpoints import load_model
from tove_lvlm.checkpoints.adapter import save_adapter
from tove_lvlm.checkpoints.model_info import make_model_info
from tove_lvlm.zero import collect_trainable


def test_adapter_folder_is_read_by_peft_and_by_chat(built, llm, tiny_tower_yaml, tmp_path):
    import peft

    from tove_lvlm.checkpoints.from_config import build_lvlm
    from tove_lvlm.config.model import ModelConfig

    model, processor = built
    wrapped = add_awake_lora(model)
    inputs = image_inputs(model)
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
