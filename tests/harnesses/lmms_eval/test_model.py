"""lmms-eval's models on the miniature world's POPE, ours and its own `llava_hf`; requests, kind by kind."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tove_lvlm.config import UserError
from tove_lvlm.data.images import to_pixels
from tove_lvlm.eval.io.problems import Problems
from tove_lvlm.eval.tasks.pope import Pope
from tove_lvlm.inference import responder_of
from tove_lvlm.inference.batching import DecodingConfig
from tove_lvlm.inference.chat import answer
from tove_lvlm.world.benchmark_files import EVAL


@pytest.mark.parametrize(
    ("model", "batch_size", "simple"), [("tove_llava", 5, False), ("llava_hf", 1, False), ("llava_hf", 1, True)]
)
def test_pope_answers_are_our_chats_and_scores_our_scorers(run, root, pope_items, chat, model, batch_size, simple):
    images = [root / EVAL / "pope/val2014" / item.image for item in pope_items]
    expected = chat.ask_many(images, [item.text for item in pope_items], max_new_tokens=128)
    metrics, answers = run(model, "pope_of_the_world", batch_size, force_simple=simple)
    assert [text.strip() for text in answers] == expected
    assert {"yes", "no"} <= set(expected)
    ours = Pope().score(
        pope_items, dict(zip([i.question_id for i in pope_items], answers, strict=True)), "lmms-eval", Problems()
    )
    theirs = {"f1": "f1_score"}
    for name in ("accuracy", "precision", "recall", "f1"):
        assert metrics[f"pope_{theirs.get(name, name)}"] == pytest.approx(ours.metrics[name], abs=1e-12), name
    assert 0 < ours.metrics["accuracy"] < 1


def create(arguments: str, **more):
    from lmms_eval.models import get_model

    return get_model("tove_llava").create_from_arg_string(arguments, more)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "needs `--model_args pretrained=FOLDER`"),
        ("pretrained=nowhere", "`nowhere` does not exist"),
        ("pretrained=x,batchsize=3", "no argument `batchsize`; did you mean `batch_size`"),
        ("pretrained=x,dtype=float8", "`dtype` is `float8`; did you mean"),
        ("pretrained=x,batch_size=0", "`batch_size` is `0`"),
    ],
)
def test_arguments_that_are_not_valid(arguments, message):
    with pytest.raises(UserError, match=message):
        create(arguments)


def test_a_checkpoint_of_another_kind_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="holds a model of type `clip`; expected a LLaVA model"):
        create(f"pretrained={tmp_path}")


ASKED = "Is there a red sphere?"


@pytest.fixture(scope="module")
def pictures(root) -> list[Path]:
    return sorted((root / "val2014").iterdir())[:3]


@pytest.fixture
def model(chat, checkpoint, pictures, monkeypatch):
    """`tove_llava` as the evaluator leaves it before its first request; each document is a picture's path."""
    from tove_lvlm.harnesses.lmms_eval import model

    monkeypatch.setattr(
        model,
        "load_model",
        lambda _: SimpleNamespace(model=chat.model, processor=chat.processor, image_aspect_ratio="pad"),
    )
    made = create(f"pretrained={checkpoint}", batch_size="4", device="cpu")
    made.task_dict = {"t": {"test": pictures}}
    return made


def request(context: str, second, *between, doc_id: int = 0) -> SimpleNamespace:
    return SimpleNamespace(args=(context, second, lambda path: [Image.open(path)], *between, doc_id, "t", "test"))


def test_every_request_is_answered_in_its_own_way_and_place(model, chat, pictures):
    told = []
    model.set_cache_hook(SimpleNamespace(add_partial=lambda *what: told.append(what)))
    ways = [{"max_new_tokens": 5}, {"num_beams": 2, "max_new_tokens": 5}, {"until": "e", "max_new_tokens": 5}]
    wanted = [(f"{'What ' * k}color is the sphere?", ways[k % 3], k % 3) for k in range(6)]
    answers = model.generate_until([request(text, way, doc_id=i) for text, way, i in wanted])
    for (text, way, i), said in zip(wanted, answers, strict=True):
        decoding = DecodingConfig(max_new_tokens=5, num_beams=way.get("num_beams", 1))
        (expected,) = answer(chat.model, chat.processor, [pictures[i]], [text], decoding=decoding)
        assert said == (expected.split("e")[0] if "until" in way else expected)
    assert sorted(what[2] for what in told) == sorted(answers)
    assert {what[0] for what in told} == {"generate_until"}


def test_losses_and_what_greedy_decoding_says(model, chat, pictures):
    greedy = chat.ask_many(pictures, [ASKED] * 3)
    requests = [request(ASKED, f" {text}", doc_id=i) for i, text in enumerate(greedy)]
    requests += [request(ASKED, lambda path: "cone", doc_id=i) for i in range(3)]
    seen, tower = [], chat.model.model.vision_tower
    hook = tower.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    model.batch_size = 6  # all requests
    found = model.loglikelihood(requests)
    hook.remove()
    assert sum(seen) == 3, "a document's choices share its picture"
    assert [is_greedy for _, is_greedy in found] == [True] * 3 + [False] * 3
    pixels = [to_pixels(Image.open(path).convert("RGB"), chat.processor.image_processor, "pad") for path in pictures]
    choices = [[text, "cone"] for text in greedy]
    ours = responder_of(chat.model, chat.processor).log_likelihoods([ASKED] * 3, choices, pixels)
    np.testing.assert_allclose(np.reshape([-loss for loss, _ in found], (2, 3)).T, ours, atol=1e-4)


def test_answers_about_several_images_are_weighed(model, chat, pictures):
    def both(path):
        return [Image.open(path), Image.open(pictures[2])]

    asked = "Is the first sphere redder?"
    requests = [SimpleNamespace(args=(asked, f" {text}", both, i, "t", "test")) for i in range(2) for text in "ab"]
    found = model.loglikelihood(requests)
    pixels = [to_pixels(Image.open(path).convert("RGB"), chat.processor.image_processor, "pad") for path in pictures]
    about = [[pixels[0], pixels[2]], [pixels[1], pixels[2]]]
    ours = responder_of(chat.model, chat.processor).log_likelihoods([asked] * 2, [["a", "b"]] * 2, about)
    np.testing.assert_allclose(np.reshape([-loss for loss, _ in found], (2, 2)), ours, atol=1e-4)


def test_several_rounds(model, chat, pictures):
    """`doc_to_text` sees the answers so far, asks again, and says when it has had enough."""
    seen = []

    def next_round(path, previous_output, round_idx, previous_round_info):
        seen.append((path, len(previous_output), round_idx, previous_round_info))
        finished = round_idx == 2 or path == pictures[1]
        return [Image.open(path)], ASKED, finished, previous_output, round_idx

    first = "What color is the sphere?"
    answers = model.generate_until_multi_round([request(first, {}, next_round, doc_id=i) for i in range(3)])
    assert [len(rounds) for rounds in answers] == [2, 1, 2]
    assert [rounds[0] for rounds in answers] == chat.ask_many(pictures, [first] * 3)
    assert answers[2][1] == chat.ask(pictures[2], ASKED)
    assert (pictures[0], 2, 2, 1) in seen
