"""The base model asked: answers and likelihoods in any batch are those of a plain forward, one at a time."""

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.tiny_base import build_base, save_base
from helpers.tiny_decoders import make_decoder
from tove_lvlm.config import UserError
from tove_lvlm.inference import EncoderDecoderResponder, responder_of
from tove_lvlm.inference.batching import DecodingConfig, PixelReader
from tove_lvlm.inference.chat import Chat
from tove_lvlm.inference.ranking import RankingConfig

QUESTIONS = ["is the red box left ?", "what shape is on the right of the blue ball ?", "what color ?"]
ANSWERS = [["yes", "no"], ["box", "the red ball", "two"], ["red", "blue green"]]


@pytest.fixture(scope="module", params=["roberta", "bert", "gpt2", "bart"])
def responder(request, tmp_path_factory, tiny_tower_yaml):
    decoder = make_decoder(tmp_path_factory.mktemp("decoder"), request.param)
    found = responder_of(*build_base(decoder, tiny_tower_yaml))
    assert isinstance(found, EncoderDecoderResponder)
    return found


def pictures(num: int = 3) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(num)]


def pixels_of(responder) -> list[torch.Tensor]:
    read = PixelReader(responder.processor.image_processor, "square")
    return [read(picture) for picture in pictures()]


def test_a_batch_answers_as_each_question_alone(responder):
    pixels = pixels_of(responder)
    rows = [responder.encode_question(question, True) for question in QUESTIONS]
    for decoding in (DecodingConfig(max_new_tokens=5), DecodingConfig(max_new_tokens=5, num_beams=3)):
        single = [responder.generate([row], [one], decoding)[0] for row, one in zip(rows, pixels, strict=True)]
        assert responder.generate(rows, pixels, decoding) == single


def test_log_likelihoods_are_the_sums_of_a_plain_forward(responder):
    pixels, model, processor = pixels_of(responder), responder.model, responder.processor
    together = responder.log_likelihoods(QUESTIONS, ANSWERS, pixels)
    end = model.config.eos_token_id
    for question, answers, values, one in zip(QUESTIONS, ANSWERS, together, pixels, strict=True):
        prompt = responder.encode_question(question, True)
        for answer, value in zip(answers, values, strict=True):
            said = [*processor.tokenizer(answer, add_special_tokens=False).input_ids, end]
            with torch.inference_mode():
                log_p = model(pixel_values=one[None], decoder_input_ids=torch.tensor([prompt + said])).logits
            log_p = log_p[0].log_softmax(-1)
            expected = sum(log_p[len(prompt) - 1 + place, token].item() for place, token in enumerate(said))
            assert value == pytest.approx(expected, abs=2e-4)


def test_what_is_greedy_is_what_is_generated(responder):
    pixels = pixels_of(responder)
    rows = [responder.encode_question(question, True) for question in QUESTIONS]
    said = responder.generate(rows, pixels, DecodingConfig(max_new_tokens=1))
    chosen = responder.score_choices(QUESTIONS, [[text or "red"] for text in said], pixels)
    for question, one, text, (choice,) in zip(QUESTIONS, pixels, said, chosen, strict=True):
        prompt = responder.encode_question(question, True)
        ids, _ = responder.processor.answer_ids(prompt, text or "red")
        with torch.inference_mode():
            best = responder.model(pixel_values=one[None], decoder_input_ids=torch.tensor([ids])).logits[0].argmax(-1)
        assert choice.greedy == (best[len(prompt) - 1 : -1].tolist() == ids[len(prompt) :])


def test_a_question_without_an_image_is_refused(responder):
    with pytest.raises(UserError, match="answers about one image only; there is none for `what \\?`"):
        responder.encode_question("what ?", False)


def test_chat_opens_its_folder(responder, tmp_path):
    save_base(tmp_path, responder.model, responder.processor)
    chat = Chat.load(tmp_path, device="cpu")
    rows = [responder.encode_question(question, True) for question in QUESTIONS]
    read = PixelReader(responder.processor.image_processor, chat.image_aspect_ratio)
    expected = responder.generate(rows, [read(one) for one in pictures()], DecodingConfig(max_new_tokens=4))
    assert chat.ask_many(pictures(), QUESTIONS, max_new_tokens=4) == expected


def test_answers_end_with_the_decoders_context(responder):
    (one, *_), context = pixels_of(responder), responder.processor.max_length
    row = responder.encode_question("red " * (context - 4), True)
    (text,) = responder.generate([row], [one], DecodingConfig(max_new_tokens=99))
    assert len(responder.processor.tokenizer(text, add_special_tokens=False).input_ids) <= 3
    with pytest.raises(UserError, match=f"fills the decoder's context of {context}"):
        responder.generate([responder.encode_question("red " * context, True)], [one], DecodingConfig())


CANDIDATES = ("yes", "no", "box", "the red ball", "the box", "two", "red", "blue green", "blue")


def test_all_candidates_are_ranked_as_their_likelihoods_are(responder):
    pixels = pixels_of(responder)
    ranking = RankingConfig(candidates=CANDIDATES, top_k=len(CANDIDATES))
    ranked = responder.rank(QUESTIONS, pixels, ranking)
    values = responder.log_likelihoods(QUESTIONS, [CANDIDATES] * 3, pixels)
    for answer, of_question in zip(ranked, values, strict=True):
        assert answer.log_likelihood == pytest.approx(max(of_question), abs=2e-4)
        assert answer.text == CANDIDATES[of_question.index(max(of_question))]


def test_only_the_likeliest_first_tokens_are_weighed(responder):
    pixels, tokenizer, k = pixels_of(responder), responder.processor.tokenizer, 3
    ranked = responder.rank(QUESTIONS, pixels, RankingConfig(candidates=CANDIDATES, top_k=k))
    first = [tokenizer(f" {text}", add_special_tokens=False).input_ids[0] for text in CANDIDATES]
    for question, one, answer in zip(QUESTIONS, pixels, ranked, strict=True):
        prompt = responder.encode_question(question, True)
        with torch.inference_mode():
            next_V = responder.model(pixel_values=one[None], decoder_input_ids=torch.tensor([prompt])).logits[0, -1]
        values = next_V[first]
        kept = [text for text, value in zip(CANDIDATES, values.tolist(), strict=True) if value >= values.topk(k)[0][-1]]
        (weighed,) = responder.log_likelihoods([question], [kept], [one])
        # "the red ball" and "the box" share their first token, so that more than k may be as likely as the k-th.
        assert answer.text in kept
        assert answer.log_likelihood in [pytest.approx(value, abs=2e-4) for value in weighed]
