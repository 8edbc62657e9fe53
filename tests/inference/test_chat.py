"""Answers: batches equal single questions, the prompt is the trained one, any photograph is taken."""

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.tiny_lvlm import WORDS
from tove_lvlm.checkpoints import load_model
from tove_lvlm.config import UserError
from tove_lvlm.data.conversations import encode_prompt, encode_v1
from tove_lvlm.inference import LlavaResponder
from tove_lvlm.inference.batching import PixelReader
from tove_lvlm.inference.chat import Chat, answer


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)) for i in range(count)]


def questions(count: int) -> list[str]:
    rng = np.random.default_rng(1)
    return [" ".join(rng.choice(WORDS, 2 + i)) for i in range(count)]


def test_batches_give_the_answers_of_single_questions(built):
    model, processor = built
    images, asked = pictures(7), questions(7)
    images[3] = None  # a question about no image among the others
    single = answer(model, processor, images, asked, batch_size=1, max_new_tokens=6)
    batched = answer(model, processor, images, asked, batch_size=4, max_new_tokens=6)
    assert batched == single
    assert len(set(single)) > 1


def test_questions_about_several_images_are_answered_among_others(built):
    """As alone; the image's place in the text, and which image stands there, matter."""
    model, processor = built
    one, two, three = pictures(3)
    images = [[one, two], one, None, [two, one, three], one, [two, one]]
    asked = ["is <image> left of <image> ?", "what ?", "what ?", "what shape ?", "where ?", "what shape ?"]
    single = answer(model, processor, images, asked, batch_size=1, max_new_tokens=6)
    assert answer(model, processor, images, asked, batch_size=4, max_new_tokens=6) == single
    responder = LlavaResponder(model, processor)
    rows = [responder.encode_question(text, 2) for text in (asked[0], "is left of ?")]
    token, count = model.config.image_token_id, model.config.image_seq_length
    assert [row.count(token) for row in rows] == [2 * count, 2 * count]
    assert rows[0].index(token) > rows[1].index(token), "in its place, and not before the question"
    trained = encode_v1(
        processor.tokenizer, [{"from": "human", "value": asked[0]}, {"from": "gpt", "value": "yes"}], 2
    ).input_ids
    unexpanded = [token for place, token in enumerate(rows[0]) if token != model.config.image_token_id]
    assert unexpanded == [token for token in trained if token != -200][: len(unexpanded)]
    pixels = [PixelReader(processor.image_processor)(image) for image in (one, two)]
    logits = [
        model(input_ids=torch.tensor(rows[:1]), pixel_values=torch.stack(order)).logits[0, -1]
        for order in (pixels, pixels[::-1])
    ]
    assert not torch.allclose(*logits, atol=1e-4)


def test_an_answer_ends_at_the_end_token(built):
    model, processor = built
    tokenizer = processor.tokenizer
    (full,) = answer(model, processor, pictures(1), questions(1), max_new_tokens=6)
    prompt = LlavaResponder(model, processor).encode_question(questions(1)[0], True)
    assert prompt.count(model.config.image_token_id) == model.config.image_seq_length
    # Make the second token of the answer the end: its output row takes </s>'s place.
    out = model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        pixel_values=torch.zeros(1, 3, 16, 16),
        max_new_tokens=3,
        do_sample=False,
    )[0, len(prompt) :]
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        head[tokenizer.eos_token_id] = head[out[0]] * 3
    assert len(answer(model, processor, pictures(1), questions(1), max_new_tokens=6)[0]) <= len(full)
    texts = answer(model, processor, pictures(2), questions(2), max_new_tokens=6)
    assert all(tokenizer.eos_token not in text for text in texts)


def test_the_prompt_is_the_beginning_of_a_training_sample(built):
    _, processor = built
    asked = "what is red ?"
    prompt = encode_prompt(processor.tokenizer, [{"from": "human", "value": f"<image>\n{asked}"}], "v1")
    talk = [{"from": "human", "value": f"<image>\n{asked}"}, {"from": "gpt", "value": "box"}]
    sample = encode_v1(processor.tokenizer, talk)
    assert sample.input_ids[: len(prompt)] == prompt
    first = next(i for i, label in enumerate(sample.labels) if label != -100)
    assert first == len(prompt)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "1"])
def test_any_photograph_is_taken(built, tmp_path, mode):
    model, processor = built
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    Image.new("RGB", (123, 45), (10, 200, 30)).convert(mode).save(path)
    talk = Chat(model, processor)
    assert isinstance(talk.ask(talk.open_image(path), "what ?", max_new_tokens=2), str)
    assert talk.ask(path, "what ?", max_new_tokens=2) == talk.ask(talk.open_image(path), "what ?", max_new_tokens=2)


def test_folder_without_a_model_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(UserError, match="neither a merged model .* nor an adapter"):
        load_model(tmp_path)


def test_images_and_questions_must_pair_up(built):
    model, processor = built
    with pytest.raises(ValueError, match="1 images for 2 questions"):
        answer(model, processor, pictures(1), questions(2))


def test_a_question_that_fills_the_context_is_an_error(built):
    model, processor = built
    words = " ".join(["red"] * 520)  # the tiny model's context is 512
    with pytest.raises(UserError, match=r"a question of 648 tokens, .* leaves no place for an answer in .* of 512"):
        answer(model, processor, pictures(1), [words], max_new_tokens=4)


def test_the_tower_sees_a_picture_once_however_often_it_is_asked_about(built):
    model, processor = built
    images, seen = pictures(2), []
    hook = model.model.vision_tower.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    talk = Chat(model, processor)
    single = [talk.ask(images[place % 2], text, max_new_tokens=5) for place, text in enumerate(questions(6))]
    assert seen == [1] * 6
    seen.clear()
    again = [images[0], images[1].copy()] * 3
    assert talk.ask_many(again, questions(6), max_new_tokens=5, batch_size=4) == single
    assert sum(seen) == 2
    seen.clear()
    about = talk.about(images[0])
    assert [about.ask(text, max_new_tokens=5) for text in questions(6)[::2]] == single[::2]
    assert seen == [1]
    hook.remove()
