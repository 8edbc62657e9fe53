"""Log-likelihoods of answers equal those of a plain forward, in any batch."""

import numpy as np
import pytest
import torch
from PIL import Image

from tove_lvlm.inference.batching import PixelReader, encode_question
from tove_lvlm.inference.likelihood import encode_answer, log_likelihoods

QUESTIONS = ["is the red box left ?", "what shape is on the right of the blue ball ?", "no picture ?"]
ANSWERS = [["yes", "no"], ["box", "the red ball", "two"], ["yes", "no picture"]]


@pytest.fixture
def pixels(built):
    rng = np.random.default_rng(0)
    read = PixelReader(built[1].image_processor)
    return [read(Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))) for _ in range(2)] + [None]


def plain(model, processor, question, answer, pixels_3HW):
    """Token by token, without padding, positions or a cut of the logits."""
    prompt = encode_question(processor, model, question, pixels_3HW is not None)
    ids, _ = encode_answer(processor, model, question, answer, pixels_3HW is not None)
    assert ids[: len(prompt)] == prompt
    assert ids[-1] == processor.tokenizer.eos_token_id
    images = {} if pixels_3HW is None else {"pixel_values": pixels_3HW[None]}
    with torch.inference_mode():
        log_p_TV = model(input_ids=torch.tensor([ids]), **images).logits[0].log_softmax(-1)
    return sum(log_p_TV[t - 1, ids[t]].item() for t in range(len(prompt), len(ids)))


def test_they_are_the_sums_of_a_plain_forward_in_any_batch(built, pixels):
    model, processor = built
    together = log_likelihoods(model, processor, QUESTIONS, ANSWERS, pixels)
    for question, answers, values, picture in zip(QUESTIONS, ANSWERS, together, pixels, strict=True):
        expected = [plain(model, processor, question, answer, picture) for answer in answers]
        assert values == pytest.approx(expected, abs=2e-4)
        (alone,) = log_likelihoods(model, processor, [question], [answers], [picture])
        assert alone == pytest.approx(values, abs=2e-4)
        assert len(set(values)) == len(values)


def test_labels_mark_the_answer_and_its_end(built):
    model, processor = built
    ids, labels = encode_answer(processor, model, "what ?", "red box", True)
    told = [label for label in labels if label != -100]
    assert told == ids[-len(told) :]
    assert processor.tokenizer.decode(told[:-1]).strip() == "red box"
    assert ids.count(model.config.image_token_id) == model.config.image_seq_length


def test_probabilities_of_all_one_token_answers_sum_to_less_than_one(built, pixels):
    model, processor = built
    words = ["yes", "no", "red", "blue", "box", "ball"]
    (values,) = log_likelihoods(model, processor, QUESTIONS[:1], [words], pixels[:1])
    assert 0 < np.exp(values).sum() < 1
