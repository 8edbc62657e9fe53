"""A merged model is an ordinary one: same logits, same tokens, the tower's frozen part."""

import numpy as np
import torch
from PIL import Image

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


def test_stock_code_answers_a_batch_as_one_by_one(built, tmp_path):
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

    model, processor = built
    wrapped = add_awake_lora(model)
    save_merged(tmp_path, collect_merged(wrapped), wrapped, processor)
    stock, again = (
        LlavaForConditionalGeneration.from_pretrained(tmp_path).eval(),
        LlavaProcessor.from_pretrained(tmp_path),
    )
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(4)]
    questions = ["what ?", "is the red box left of the blue ball ?", "what shape is it ?", "is it two ?"]
    prompts = [
        again.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}],
            add_generation_prompt=True,
        )
        for question in questions
    ]

    def answers(images, prompts):
        inputs = again(images=images, text=prompts, padding=True, return_tensors="pt")
        said = stock.generate(**inputs, max_new_tokens=6, do_sample=False)
        return again.batch_decode(said[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    single = [answers([image], [prompt])[0] for image, prompt in zip(images, prompts, strict=True)]
    assert len(set(single)) > 1
    assert answers(images, prompts) == single
