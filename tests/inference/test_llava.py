"""A LLaVA model asked: no row changes its neighbours, decoding is what was asked for, and log-likelihoods of answers
equal those of a plain forward, in any batch.
"""

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.tiny_lvlm import WORDS
from tove_lvlm.inference import LlavaResponder
from tove_lvlm.inference.batching import DecodingConfig, PixelReader, pad_left
from tove_lvlm.inference.prompts import model_inputs
from tove_lvlm.inference.ranking import RankingConfig
from tove_lvlm.inference.shared import pixel_list

QUESTIONS = [
    "is the red box left ?",
    "what shape is on the right of the blue ball ?",
    "no picture ?",
    "is <image> left of <image> ?",
    "red or blue ?",
]
ANSWERS = [["yes", "no"], ["box", "the red ball", "two"], ["yes", "no picture"], ["yes", "no"], ["red", "blue"]]


@pytest.fixture
def pixels(built):
    """One picture each for two questions, none for one, both for two."""
    rng = np.random.default_rng(0)
    read = PixelReader(built[1].image_processor)
    one, other = [read(Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))) for _ in range(2)]
    return [one, other, None, [one, other], [other, one]]


def images_of(about) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.stack(pixel_list(about))} if pixel_list(about) else {}


def plain(responder, question, answer, about):
    """Token by token, without padding, positions or a cut of the logits."""
    model, processor = responder.model, responder.processor
    prompt = responder.encode_question(question, len(pixel_list(about)))
    ids, _ = responder.encode_answer(question, answer, len(pixel_list(about)))
    assert ids[: len(prompt)] == prompt
    assert ids[-1] == processor.tokenizer.eos_token_id
    with torch.inference_mode():
        log_p_TV = model(input_ids=torch.tensor([ids]), **images_of(about)).logits[0].log_softmax(-1)
    return sum(log_p_TV[t - 1, ids[t]].item() for t in range(len(prompt), len(ids)))


def test_they_are_the_sums_of_a_plain_forward_in_any_batch(built, pixels):
    responder = LlavaResponder(*built)
    together = responder.log_likelihoods(QUESTIONS, ANSWERS, pixels)
    for question, answers, values, picture in zip(QUESTIONS, ANSWERS, together, pixels, strict=True):
        expected = [plain(responder, question, answer, picture) for answer in answers]
        assert values == pytest.approx(expected, abs=2e-4)
        (alone,) = responder.log_likelihoods([question], [answers], [picture])
        assert alone == pytest.approx(values, abs=2e-4)
        assert len(set(values)) == len(values)


def test_labels_mark_the_answer_and_its_end(built):
    model, processor = built
    ids, labels = LlavaResponder(model, processor).encode_answer("what ?", "red box", 1)
    told = [label for label in labels if label != -100]
    assert told == ids[-len(told) :]
    assert processor.tokenizer.decode(told[:-1]).strip() == "red box"
    assert ids.count(model.config.image_token_id) == model.config.image_seq_length


def test_probabilities_of_all_one_token_answers_sum_to_less_than_one(built, pixels):
    responder = LlavaResponder(*built)
    words = ["yes", "no", "red", "blue", "box", "ball"]
    (values,) = responder.log_likelihoods(QUESTIONS[:1], [words], pixels[:1])
    assert 0 < np.exp(values).sum() < 1


def test_candidates_are_ranked_as_their_likelihoods_are(built, pixels):
    responder, candidates = LlavaResponder(*built), ("yes", "no", "red box", "red", "blue ball")
    values = responder.log_likelihoods(QUESTIONS, [candidates] * len(QUESTIONS), pixels)
    ranked = responder.rank(QUESTIONS, pixels, RankingConfig(candidates=candidates))
    for answer, of_question in zip(ranked, values, strict=True):
        assert answer.text == candidates[of_question.index(max(of_question))]
        assert answer.log_likelihood == pytest.approx(max(of_question), abs=2e-4)


def test_one_candidate_is_weighed_where_only_one_is_asked_for(built, pixels):
    responder, words = LlavaResponder(*built), ("yes", "no", "red", "blue", "box", "ball")
    model, processor = built
    ranked = responder.rank(QUESTIONS, pixels, RankingConfig(candidates=words, top_k=1))
    for question, picture, answer in zip(QUESTIONS, pixels, ranked, strict=True):
        ids = responder.encode_question(question, len(pixel_list(picture)))
        with torch.inference_mode():
            next_V = model(input_ids=torch.tensor([ids]), **images_of(picture)).logits[0, -1]
        first = [processor.tokenizer(word, add_special_tokens=False).input_ids[0] for word in words]
        assert answer.text == words[int(next_V[first].argmax())]


def prompts(responder, lengths=(2, 5, 9)):
    rng = np.random.default_rng(1)
    rows = [responder.encode_question(" ".join(rng.choice(WORDS, n)), True) for n in lengths]
    read = PixelReader(responder.processor.image_processor)
    return rows, [read(Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8))) for _ in lengths]


def test_a_batch_answers_as_each_row_alone_whatever_the_padding_holds(built):
    responder = LlavaResponder(*built)
    model = responder.model
    rows, pixels = prompts(responder)
    decoding = DecodingConfig(max_new_tokens=6)
    single = [responder.generate([r], [p], decoding)[0] for r, p in zip(rows, pixels, strict=True)]
    assert responder.generate(rows, pixels, decoding) == single
    assert len(set(single)) > 1
    ids_BT, mask_BT = pad_left(rows, 7)
    logits = [
        model(**model_inputs(model, i, mask_BT, pixels), position_ids=(mask_BT.cumsum(1) - 1).clamp(min=0)).logits
        for i in (ids_BT, pad_left(rows, 0)[0])
    ]
    assert torch.allclose(logits[0][:, -1], logits[1][:, -1], atol=1e-5)


def test_sampling_is_seeded_and_beams_are_searched(built):
    responder = LlavaResponder(*built)
    rows, pixels = prompts(responder)

    def say(**settings):
        return responder.generate(rows, pixels, DecodingConfig(max_new_tokens=6, **settings))

    assert say(temperature=1.5) == say(temperature=1.5)
    assert say(temperature=1.5) != say(temperature=1.5, seed=1)
    assert say(temperature=1e-4, seed=3) == say()
    assert len(say(num_beams=2)) == 3
