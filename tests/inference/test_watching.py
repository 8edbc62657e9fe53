"""An answer told token by token is the answer, one ended early its beginning; a conversation is encoded as trained."""

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.tiny_base import build_base
from helpers.tiny_decoders import make_decoder
from tove_lvlm.config import UserError
from tove_lvlm.data.conversations import encode_v1
from tove_lvlm.inference import LlavaResponder, responder_of
from tove_lvlm.inference.batching import DecodingConfig, PixelReader
from tove_lvlm.inference.watching import TokenWatch

LETTER_CUT = "\N{REPLACEMENT CHARACTER}"
LENGTH = DecodingConfig(max_new_tokens=7, min_new_tokens=7)


@pytest.fixture(params=["llava", "base"])
def responder(request, built, tmp_path, tiny_tower_yaml):
    if request.param == "llava":
        return responder_of(*built)
    return responder_of(*build_base(make_decoder(tmp_path / "decoder", "gpt2"), tiny_tower_yaml))


def pixels_for(responder) -> torch.Tensor:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    return PixelReader(responder.processor.image_processor, "square")(picture)


def test_what_is_told_grows_into_the_answer(responder):
    row, pixels = responder.encode_question("what color ?", 1), pixels_for(responder)
    told: list[tuple[str, int]] = []
    (answer,) = responder.generate([row], [pixels], LENGTH, lambda text, num: told.append((text, num)) is None)
    assert responder.generate([row], [pixels], LENGTH) == [answer]
    assert told[-1] == (answer.rstrip(LETTER_CUT), 7)
    assert [num for _, num in told] == list(range(1, 8))
    assert all(answer.startswith(text) for text, _ in told)
    assert len({text for text, _ in told}) > 1


def test_it_ends_after_the_token_at_which_it_is_told_to(responder):
    row, pixels = responder.encode_question("what color ?", 1), pixels_for(responder)
    numbers: list[int] = []

    def until_three(text: str, num: int) -> bool:
        numbers.append(num)
        return num < 3

    (short,) = responder.generate([row], [pixels], LENGTH, until_three)
    (whole,) = responder.generate([row], [pixels], LENGTH)
    assert numbers == [1, 2, 3]
    assert whole.startswith(short)
    assert len(short) < len(whole)


def test_half_a_letter_waits_for_its_other_half():
    class Bytes:
        def decode(self, ids, skip_special_tokens):
            return bytes(ids).decode("utf-8", errors="replace")

    told: list[str] = []
    watch = TokenWatch(Bytes(), [0], lambda text, num: told.append(text) is None, prompt_length=2)
    ids = [1, 2, *"né".encode(), 0]
    for end in range(3, len(ids) + 1):
        assert watch(torch.tensor([ids[:end]]), None).tolist() == [False]
    assert told == ["n", "n", "né", "né"]


def test_a_conversation_is_encoded_as_in_training(built):
    responder = responder_of(*built)
    assert isinstance(responder, LlavaResponder)
    turns = [
        {"from": "human", "value": "<image>\nwhat shape ?"},
        {"from": "gpt", "value": "box"},
        {"from": "human", "value": "what color ?"},
        {"from": "gpt", "value": "red"},
    ]
    trained = encode_v1(responder.tokenizer, turns, 1).input_ids
    prompt = responder.encode_turns(turns[:3], 1)
    model = responder.model
    count, token = model.config.image_seq_length, model.config.image_token_id
    start = prompt.index(token)
    assert prompt[start : start + count] == [token] * count
    assert [*prompt[:start], -200, *prompt[start + count :]] == trained[: len(prompt) - count + 1]
    assert len(trained) > len(prompt) - count + 1
    assert responder.encode_turns(turns[:1], 1) == responder.encode_question("what shape ?", 1)


def test_the_base_model_is_asked_the_last_question(tmp_path, tiny_tower_yaml):
    responder = responder_of(*build_base(make_decoder(tmp_path / "decoder", "gpt2"), tiny_tower_yaml))
    turns = [{"from": "human", "value": "<image>\nwhat shape ?"}, {"from": "gpt", "value": "box"}]
    turns.append({"from": "human", "value": "what color ?"})
    assert responder.encode_turns(turns, 1) == responder.encode_question("what color ?", 1)
    assert responder.encode_turns(turns[:1], 1) == responder.encode_question("what shape ?", 1)
    with pytest.raises(UserError, match="about one image only"):
        responder.encode_turns(turns, 2)
