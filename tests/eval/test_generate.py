"""The engine: batches answer as single questions do, ranking is by likelihood, broken pictures are named."""

import dataclasses
import shutil
import weakref

import pytest

from tove_lvlm.eval import generate
from tove_lvlm.eval.benchmark import read_benchmark, task_class
from tove_lvlm.eval.io.find import find
from tove_lvlm.eval.io.items import Item
from tove_lvlm.eval.io.problems import Problems
from tove_lvlm.inference import responder_of
from tove_lvlm.inference.batching import DecodingConfig
from tove_lvlm.inference.cache import num_bytes
from tove_lvlm.inference.chat import answer
from tove_lvlm.inference.prompts import PromptReader
from tove_lvlm.inference.shared import KEEP_BYTES, SharedPicture


@pytest.fixture
def pope(benchmarks):
    place = find(task_class("pope"), benchmarks)
    return read_benchmark("pope", place.labels, limit=12).items, place.images


def ask(loaded, items, images, batch_size=8, problems=None, keep_bytes=KEEP_BYTES):
    found, decoding = Problems() if problems is None else problems, DecodingConfig(max_new_tokens=5)
    said = list(generate.answers(loaded, items, images, decoding, batch_size, found, keep_bytes=keep_bytes))
    assert problems is not None or not found
    return said


def test_any_batch_size_gives_the_answers_of_single_questions(loaded, pope):
    items, images = pope
    items = [*items, Item(question_id="blind", image="", text="what is red ?")]
    single = {said.item.question_id: said.text for said in ask(loaded, items, images, batch_size=1)}
    assert {said.item.question_id: said.text for said in ask(loaded, items, images, batch_size=5)} == single
    assert len(set(single.values())) > 1
    pictures = [images / item.image if item.image else None for item in items]
    asked = [item.text for item in items]
    chat = answer(
        loaded.model, loaded.processor, pictures, asked, max_new_tokens=5, image_aspect_ratio=loaded.image_aspect_ratio
    )
    assert [single[item.question_id] for item in items] == chat


@pytest.fixture
def seen(loaded):
    """How many pictures the vision tower was given, call by call."""
    counts = []
    hook = loaded.vision_tower.register_forward_hook(lambda _, args, __: counts.append(len(args[0])))
    yield counts
    hook.remove()


def test_the_tower_sees_each_picture_once_and_the_answers_are_those_of_single_questions(loaded, benchmarks, seen):
    place = find(task_class("pope"), benchmarks)
    items, images = read_benchmark("pope", place.labels).items, place.images
    pictures = {item.image for item in items}
    assert len(items) >= 6 * len(pictures)
    single = {said.item.question_id: said.text for said in ask(loaded, items, images, batch_size=1, keep_bytes=0)}
    assert seen == [1] * len(items)
    one = responder_of(loaded.model, loaded.processor).picture_bytes
    for keep_bytes, batch_size in ((2 * one, 4), (len(pictures) * one, 7)):
        seen.clear()
        said = ask(loaded, items, images, batch_size=batch_size, keep_bytes=keep_bytes)
        assert {each.item.question_id: each.text for each in said} == single
        assert sum(seen) == len(pictures)


def test_kept_pictures_take_no_more_bytes_than_they_may(loaded, pope, monkeypatch):
    items, images = pope
    made, most = weakref.WeakSet(), []

    class Watched(SharedPicture):
        def __init__(self, pixels_3HW):
            super().__init__(pixels_3HW)
            made.add(self)

    def kept_bytes(self, part):
        found = inputs(self, part)
        kept = [one for one in made if one.kept is not None]
        most.append(sum(num_bytes(one.kept) + one.pixels_3HW.nbytes for one in kept))
        return found

    inputs = PromptReader.inputs
    monkeypatch.setattr(generate, "SharedPicture", Watched)
    monkeypatch.setattr(PromptReader, "inputs", kept_bytes)
    one = responder_of(loaded.model, loaded.processor).picture_bytes
    everything = [*items, *(dataclasses.replace(item, question_id=f"{item.question_id} again") for item in items)]
    ask(loaded, everything, images, batch_size=4, keep_bytes=int(1.5 * one))
    assert max(most) == one
    assert len(most) > 2


def test_choices_are_ranked_by_likelihood(loaded, benchmarks):
    place = find(task_class("vsr_likelihood"), benchmarks)
    items = read_benchmark("vsr_likelihood", place.labels, limit=5).items
    single, batched = (ask(loaded, items, place.images, batch_size=size) for size in (1, 4))
    for one, other in zip(*(sorted(s, key=lambda said: said.item.question_id) for s in (single, batched)), strict=True):
        values = one.metadata["log_likelihoods"]
        assert list(values) == ["True", "False"]
        assert one.text == other.text == max(values, key=values.get)
        assert other.metadata["log_likelihoods"] == pytest.approx(values, abs=1e-4)
        assert all(value < 0 for value in values.values())


def test_missing_and_broken_pictures_are_named_and_their_neighbours_answered(loaded, pope, tmp_path):
    items, images = pope
    shutil.copytree(images, tmp_path / "images")
    names = list(dict.fromkeys(item.image for item in items))
    (tmp_path / "images" / names[0]).unlink()
    (tmp_path / "images" / names[1]).write_bytes(b"no picture")
    problems = Problems()
    said = ask(loaded, items, tmp_path / "images", problems=problems)
    expected = {item.question_id: item.image for item in items}
    assert sorted(problems["missing image"]) == sorted(key for key, image in expected.items() if image == names[0])
    assert sorted(problems["unreadable image"]) == sorted(key for key, image in expected.items() if image == names[1])
    kept = {key for key, image in expected.items() if image not in names[:2]}
    assert {each.item.question_id for each in said} == kept
    whole = {each.item.question_id: each.text for each in ask(loaded, items, images)}
    assert all(whole[each.item.question_id] == each.text for each in said)


def test_a_question_that_fills_the_context_is_named_and_its_neighbours_answered(loaded, pope):
    items, images = pope
    endless = Item(question_id="endless", image=items[0].image, text=" ".join(["red"] * 520))
    problems = Problems()
    said = ask(loaded, [items[0], endless, items[1]], images, problems=problems)
    assert problems["question longer than the context"] == ["endless"]
    assert {each.item.question_id for each in said} == {items[0].question_id, items[1].question_id}


def test_a_caller_that_stops_early_leaves_no_thread_behind(loaded, pope):
    items, images = pope
    said = generate.answers(loaded, items, images, DecodingConfig(max_new_tokens=1), 2, Problems())
    next(said)
    said.close()
