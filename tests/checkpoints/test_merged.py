"""A merged model is an ordinary one: same logits, same tokens, the tower's frozen part."""

import torch

from helpers.tiny_checkpoints import add_awake_lora, image_inputs, logits
from tove_lvlm.checkpoints.merged import save_merged
from tove_lvlm.lvlm.lora import collect_merged


def test_merged_folder_loads_as_an_ordinary_model_with_the_same_logits(built, tmp_path):
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

    model, processor = built
    wrapped = add_awake_lora(model)
    inputs = image_inputs(model)
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
