"""Pictures that several questions are about: seen once, and every answer is that of the question alone."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.tiny_base import build_base
from helpers.tiny_checkpoints import build
from helpers.tiny_decoders import make_decoder
from helpers.tiny_lvlm import WORDS
from tove_lvlm.inference import responder_of
from tove_lvlm.inference.batching import DecodingConfig, PixelReader
from tove_lvlm.inference.ranking import RankingConfig
from tove_lvlm.inference.shared import SharedPicture, picture_key, pixels_of, share_repeated
from tove_lvlm.lvlm.parts import vision_part

TOLERANCE = 2e-4
"""Of a log-likelihood, in float32."""
CHOICES = [["yes", "no"], ["box", "the red ball", "two"], ["red", "blue green"], ["yes", "a picture", "no"], ["two"]]
CANDIDATES = ("yes", "no", "red box", "red", "the red ball", "the box")


@pytest.fixture(scope="module", params=["tove", "clip", "peft", "base"])
def responder(request, tmp_path_factory, llm, tiny_tower_yaml):
    """A LLaVA model with a ToVE tower, with CLIP alone, inside peft; and the base model."""
    if request.param == "base":
        decoder = make_decoder(tmp_path_factory.mktemp("decoder"), "gpt2")
        model, processor = build_base(decoder, tiny_tower_yaml)
        torch.manual_seed(0)
        for name, weight in model.named_parameters():
            if not name.startswith("encoder.") and weight.ndim > 1:
                torch.nn.init.normal_(weight)  # at its start it says one word, whatever it sees
        return responder_of(model.eval(), processor)
    if request.param == "clip":
        model, processor = build(llm, tower=tiny_tower_yaml, vision_tower="clip")
    else:
        model, processor = build(llm, tower=tiny_tower_yaml)
    if request.param == "peft":
        from helpers.tiny_checkpoints import add_awake_lora

        model = add_awake_lora(model).eval()
    return responder_of(model, processor)


@pytest.fixture
def seen(responder, monkeypatch):
    """How many pictures the vision tower was given, call by call."""
    counts, tower = [], vision_part(responder.model)
    hook = tower.register_forward_hook(
        lambda _, args, kwargs, __: counts.append(len(kwargs["pixel_values"] if "pixel_values" in kwargs else args[0])),
        with_kwargs=True,
    )
    yield counts
    hook.remove()


def ids_until(out_BT: torch.Tensor, end: int) -> list[str]:
    """Token ids in place of texts, which two answers might share."""
    return [str(row[: row.index(end)] if end in row else row) for row in out_BT.tolist()]


def pictures(responder, num: int = 2) -> list[torch.Tensor]:
    rng, read = np.random.default_rng(4), PixelReader(responder.processor.image_processor, "square")
    return [read(Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))) for _ in range(num)]


def questions(num: int = 5) -> list[str]:
    rng = np.random.default_rng(2)
    return [" ".join(rng.choice(WORDS, 2 + 3 * (index % 3))) for index in range(num)]


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3, "length_penalty": 2.0}, {"temperature": 1e-4}])
def test_answers_are_those_of_each_question_alone(responder, seen, monkeypatch, settings):
    monkeypatch.setattr(responder, "_texts", ids_until)
    decoding, asked = DecodingConfig(max_new_tokens=6, **settings), questions()
    pixels = (pictures(responder) * 3)[:5]
    rows = [responder.encode_question(text, True) for text in asked]
    alone = [responder.generate([row], [one], decoding)[0] for row, one in zip(rows, pixels, strict=True)]
    assert len(set(alone)) > 1
    assert seen == [1] * 5
    seen.clear()
    assert responder.generate(rows, pixels, decoding) == alone
    assert sum(seen) == 2
    shared = [SharedPicture(one) for one in pictures(responder)]
    seen.clear()
    first = responder.generate(rows[:3], [shared[0], shared[1], shared[0]], decoding)
    rest = responder.generate(rows[3:], [shared[1], shared[0]], decoding)
    again = responder.generate(rows[:3], [shared[0], shared[1], shared[0]], decoding)
    assert first + rest == alone
    assert again == first, "what is kept is not what `generate` has added to"
    assert seen == [2]


def test_likelihoods_are_those_of_each_question_alone(responder, seen):
    asked, pixels = questions(), (pictures(responder) * 3)[:5]
    together = responder.score_choices(asked, CHOICES, pixels)
    assert sum(seen) == 2
    for question, choices, one, scored in zip(asked, CHOICES, pixels, together, strict=True):
        for answer, found in zip(choices, scored, strict=True):
            ((alone,),) = responder.score_choices([question], [[answer]], [one])
            assert found.log_likelihood == pytest.approx(alone.log_likelihood, abs=TOLERANCE)
            assert found.greedy == alone.greedy


def test_a_question_with_candidates_costs_one_look(responder, seen):
    asked, pixels = questions(4), pictures(responder) * 2
    ranking = RankingConfig(candidates=CANDIDATES, top_k=4)
    alone = [responder.rank([text], [one], ranking)[0] for text, one in zip(asked, pixels, strict=True)]
    assert sum(seen) == 4
    seen.clear()
    shared = [SharedPicture(one) for one in pixels[:2]]
    found = responder.rank(asked, [shared[place % 2] for place in range(4)], ranking)
    assert [answer.text for answer in found] == [answer.text for answer in alone]
    values = [answer.log_likelihood for answer in alone]
    assert [answer.log_likelihood for answer in found] == pytest.approx(values, abs=TOLERANCE)
    assert sum(seen) == 2


def test_a_picture_takes_the_bytes_that_are_stated(responder):
    shared = SharedPicture(pictures(responder, 1)[0])
    responder.generate([responder.encode_question("what ?", True)], [shared], DecodingConfig(max_new_tokens=2))
    layers = [] if isinstance(shared.kept, torch.Tensor) else shared.kept.layers
    tensors = [one for layer in layers for one in (layer.keys, layer.values)] or [shared.kept]
    assert responder.picture_bytes == sum(one.nbytes for one in tensors) + shared.pixels_3HW.nbytes
    assert responder.num_kept(3 * responder.picture_bytes) == 3
    assert responder.num_kept(responder.picture_bytes - 1) == 0


def test_questions_about_nothing_stand_beside_those_about_a_kept_picture(built):
    responder = responder_of(*built)
    shared, decoding, asked = SharedPicture(pictures(responder, 1)[0]), DecodingConfig(max_new_tokens=5), questions(3)
    rows = [responder.encode_question(text, place != 1) for place, text in enumerate(asked)]
    expected = [
        responder.generate([row], [] if place == 1 else [shared.pixels_3HW], decoding)[0]
        for place, row in enumerate(rows)
    ]
    assert responder.generate(rows, [shared, shared], decoding) == expected
    values = responder.log_likelihoods(asked, [["yes", "no"], ["red"], []], [shared, None, shared])
    assert values[1:] == [[pytest.approx(responder.log_likelihoods([asked[1]], [["red"]], [None])[0][0])], []]


def test_a_language_model_that_forgets_is_asked_as_if_nothing_were_kept(built):
    """Attention with a window counts columns, so what is kept would not be read as it was."""
    model, processor = copy.deepcopy(built[0]), built[1]
    text = model.config.text_config
    text.layer_types, text.sliding_window = ["sliding_attention"] * text.num_hidden_layers, 512
    responder = responder_of(model, processor)
    assert (responder.picture_bytes, responder.num_kept(1 << 30)) == (0, 0)
    shared = SharedPicture(pictures(responder, 1)[0])
    asked, plain = questions(2), responder_of(*built)
    found = responder.log_likelihoods(asked, CHOICES[:2], [shared, shared])
    expected = plain.log_likelihoods(asked, CHOICES[:2], [shared.pixels_3HW] * 2)
    assert found[0] == pytest.approx(expected[0], abs=TOLERANCE)
    assert shared.kept is None


def test_only_what_stands_twice_is_shared():
    one, other = torch.zeros(3, 2, 2), torch.zeros(3, 2, 2)
    found = share_repeated([one, other, None, one])
    assert found[0] is found[3]
    assert isinstance(found[0], SharedPicture)
    assert found[1] is other
    assert found[2] is None
    assert pixels_of(found[0]) is one


def test_equal_pictures_have_equal_keys(tmp_path):
    red, blue = (Image.new("RGB", (4, 4), color) for color in ("red", "blue"))
    assert picture_key(red) == picture_key(red.copy()) != picture_key(blue)
    assert picture_key(tmp_path / "a.png") == picture_key(str(tmp_path / "a.png"))
    assert picture_key(None) is None
    palettes = [image.convert("P", palette=Image.Palette.ADAPTIVE, colors=1) for image in (red, blue)]
    assert palettes[0].tobytes() == palettes[1].tobytes()
    assert picture_key(palettes[0]) != picture_key(palettes[1])
