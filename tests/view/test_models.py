"""A model behind the page answers as the command does, with any experts switched off, and says what that took."""

import numpy as np
import pytest
import torch

from helpers.tiny_base import build_base, save_base
from helpers.tiny_decoders import make_decoder
from tove_lvlm.checkpoints import load_model
from tove_lvlm.config import UserError
from tove_lvlm.inference.chat import Chat
from tove_lvlm.surgery.detach import detach
from tove_lvlm.view.models import ViewedModel
from tove_lvlm.view.requests import Ask, Done, Look, MeasureUsage, Text
from tove_lvlm.viz.gates import gates_of_images

QUESTION = "How many objects are there?"
EXPERTS = ("depth", "normals", "edges", "shapes")


@pytest.fixture(scope="module")
def viewed(demo_folder):
    return ViewedModel(demo_folder / "tove", "cpu")


def told_to(events: list):
    return lambda event: events.append(event) is None


def test_an_answer_is_that_of_chat_whatever_is_switched_off(viewed, demo_folder, scene):
    chat, answers = Chat.load(demo_folder / "tove", "cpu"), set()
    for detached in ((), ("depth", "edges"), EXPERTS, ("shapes",), ()):
        tower = load_model(demo_folder / "tove").tower
        chat.model.model.vision_tower.attach()
        if detached:
            tower.detach(*detached)
            chat.model.model.vision_tower.detach(*detached)
        events: list = []
        request = Ask(model=0, picture=scene, question=QUESTION, detached=detached, max_new_tokens=9)
        answer = viewed.ask(request, told_to(events))
        assert answer.text == chat.ask(scene, QUESTION, max_new_tokens=9)
        assert events[-1] == Text(text=answer.text)
        assert 0 < answer.tower_ms < answer.first_token_ms
        assert answer.prompt_ms == pytest.approx(answer.first_token_ms - answer.tower_ms)
        size = sum(p.numel() * p.element_size() for p in [*chat.model.parameters(), *chat.model.buffers()])
        assert answer.memory_bytes == size
        answers.add((answer.text, answer.memory_bytes))
    assert len({memory for _, memory in answers}) == 4, "what is switched off takes no memory"
    assert len({text for text, _ in answers}) > 1, "experts make a difference to this model"


def test_a_conversation_goes_on(viewed, scene):
    first = Ask(model=0, picture=scene, question=QUESTION, max_new_tokens=5)
    alone = Ask(model=0, picture=scene, question="And its color?", max_new_tokens=5)
    later = Ask(model=0, picture=scene, question="And its color?", earlier=((QUESTION, "cube"),), max_new_tokens=5)
    rows: list[list[int]] = []
    generate = viewed._responder.generate

    def kept(given, *rest):
        rows.extend(given)
        return generate(given, *rest)

    viewed._responder.generate = kept
    try:
        for request in (first, alone, later):
            viewed.ask(request, told_to([]))
    finally:
        viewed._responder.generate = generate
    asked, again, longer = rows
    texts = [viewed._responder.tokenizer.decode(row, skip_special_tokens=True) for row in rows]
    assert QUESTION in texts[2]
    assert "cube" in texts[2]
    assert texts[2].rstrip().endswith("ASSISTANT:")
    assert longer[: len(asked)] == asked
    image = viewed._responder.model.config.image_token_id
    assert longer.count(image) == asked.count(image) == again.count(image)


def test_it_ends_when_nobody_waits_any_more(viewed, scene):
    request = Ask(model=0, picture=scene, question="Describe the scene.", max_new_tokens=30)
    whole = viewed.ask(request, told_to([]))
    short = viewed.ask(request, lambda event: False)
    assert short.cancelled
    assert not whole.cancelled
    assert short.tokens_per_second is None, "one token has no pace"
    assert whole.text.startswith(short.text)


def test_the_gate_is_that_of_tove_gates(viewed, demo_folder, scene):
    loaded = load_model(demo_folder / "tove")
    seen = viewed.look(Look(model=0, picture=scene, detached=("normals",)))
    loaded.tower.detach("normals")
    (expected,) = gates_of_images(loaded, [scene])
    assert seen.gates.detached == ["normals"]
    assert np.array_equal(seen.gates.gate_KYX, expected.gate_KYX)
    assert np.array_equal(seen.gates.strength_KYX, expected.strength_KYX)
    assert seen.tower_ms > 0


def test_a_plain_clip_says_that_there_is_no_gate(demo_folder, scene):
    viewed = ViewedModel(demo_folder / "clip", "cpu")
    about = viewed.about(demo_folder / "clip", "clip")
    assert (about.name, about.experts) == ("clip", ())
    seen = viewed.look(Look(model=0, picture=scene))
    assert seen.gates is None
    assert "plain CLIP" in seen.why
    assert viewed.ask(Ask(model=0, picture=scene, question=QUESTION), told_to([])).tower_ms > 0
    with pytest.raises(UserError, match="has no experts to switch off"):
        viewed.look(Look(model=0, picture=scene, detached=("depth",)))


def test_an_unknown_expert_is_named(viewed, scene):
    with pytest.raises(UserError, match="there is no expert `text`; the tower has depth, normals, edges, shapes"):
        viewed.look(Look(model=0, picture=scene, detached=("text",)))


def test_what_is_detached_on_disk_keeps_its_mean_term(demo_folder, scene, tmp_path):
    """It stays off, as its weights are not there, whatever is switched beside it."""
    original = load_model(demo_folder / "tove")
    mean_D = torch.linspace(-1, 1, original.tower.config.base_width)
    original.tower.detach("edges", mean_terms={"edges": mean_D})
    from helpers.tiny_checkpoints import save

    folder = save(tmp_path / "less", original.model, original.processor, aspect_ratio="pad")
    viewed = ViewedModel(folder, "cpu")
    about = viewed.about(folder, "less")
    assert (about.detached, about.switches) == (("edges",), ("depth", "normals", "shapes"))
    with pytest.raises(UserError, match="does not say where the weights of `edges` come from"):
        viewed.look(Look(model=0, picture=scene))
    look = Look(model=0, picture=scene, detached=("edges",))
    before = viewed.look(look).gates
    viewed.look(Look(model=0, picture=scene, detached=("edges", "depth")))
    after = viewed.look(look).gates
    assert np.array_equal(before.gate_KYX, after.gate_KYX)
    kept = viewed._loaded.tower.tove_fusion.mean_terms["edges"]
    assert torch.equal(kept, mean_D.to(kept))


def test_the_command_writes_the_state_that_is_shown(viewed, demo_folder, scene, tmp_path):
    from tove_lvlm.view.words import detach_command

    command = detach_command(viewed.about(demo_folder / "tove", "tove"), ("edges", "depth"))
    assert command == f"tove detach {demo_folder}/tove --experts depth,edges --output outputs/tove-detached"
    detach(demo_folder / "tove", tmp_path / "less", ["depth", "edges"])
    asked = Ask(model=0, picture=scene, question=QUESTION, detached=("depth", "edges"), max_new_tokens=9)
    assert viewed.ask(asked, told_to([])).text == Chat.load(tmp_path / "less", "cpu").ask(scene, QUESTION, 9)


def test_usage_is_measured_and_can_be_cancelled(viewed, demo_folder):
    request = MeasureUsage(model=0, folder=demo_folder / "data" / "heldout" / "images", batch_size=2)
    events: list = []
    usage = viewed.usage(request, told_to(events))
    assert usage.report["num_images"] == 6
    assert events[-1] == Done(done=3, total=3)
    assert sum(row["gate_mass"] for row in usage.report["experts"].values()) == pytest.approx(1)
    assert viewed.usage(request, lambda event: event.done < 1).report is None


def test_the_base_model_is_asked_without_what_was_said(tmp_path, tiny_tower_yaml, scene):
    model, processor = build_base(make_decoder(tmp_path / "decoder", "gpt2"), tiny_tower_yaml)
    folder = save_base(tmp_path / "base", model, processor)
    viewed = ViewedModel(folder, "cpu")
    assert not viewed.about(folder, "less").keeps_conversation
    answer = viewed.ask(Ask(model=0, picture=scene, question="what color ?", max_new_tokens=4), told_to([]))
    assert answer.text == Chat.load(folder, "cpu").ask(scene, "what color ?", max_new_tokens=4)
