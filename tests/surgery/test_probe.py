"""Quality with any set of experts equals what a stock model says that has only these experts."""

import json

import pytest

from helpers.brute_force import questions_as_llava, stock_quality
from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.config import UserError
from tove_lvlm.data.errors import DataError
from tove_lvlm.inference.chat import answer
from tove_lvlm.surgery.probe import Probe
from tove_lvlm.surgery.probe_data import read_probe_data


def test_the_full_set_is_the_stock_model(trained, world):
    loaded = open_checkpoint(trained)
    samples = [s for s in json.loads((world / "finetune.json").read_text()) if "image" in s]
    data = read_probe_data(data=world / "finetune.json")
    assert len(samples) == 18
    assert data.num_text_only == 6
    loss, score = stock_quality(loaded, samples, world / "images")
    (quality,) = Probe(loaded, data, batch_size=5).quality([loaded.tower.expert_names])
    assert quality.loss == pytest.approx(loss, abs=1e-5)
    assert quality.score == pytest.approx(score, abs=1e-9)
    assert quality.num_answers == 36


def test_any_subset_is_a_tower_without_the_others(trained, world):
    loaded = open_checkpoint(trained)
    data = read_probe_data(data=world / "questions.jsonl", image_folder=world / "images")
    names = loaded.tower.expert_names
    sets = [names, names[1:], [names[2]], []]
    found = Probe(loaded, data, batch_size=4).quality(sets)
    assert loaded.tower.attached_names == names  # the model is as it was
    samples = questions_as_llava(world / "questions.jsonl")
    losses = set()
    for kept, quality in zip(sets, found, strict=True):
        fresh = open_checkpoint(trained)
        if away := [name for name in names if name not in kept]:
            fresh.tower.detach(*away)
        loss, score = stock_quality(fresh, samples, world / "images")
        assert quality.loss == pytest.approx(loss, abs=1e-5)
        assert quality.score == pytest.approx(score, abs=1e-9)
        losses.add(round(loss, 4))
    assert len(losses) == 4


def test_the_score_of_questions_is_greedy_exact_match(trained, world):
    loaded = open_checkpoint(trained)
    rows = list(map(json.loads, (world / "questions.jsonl").read_text().splitlines()))
    (quality,) = Probe(loaded, read_probe_data(data=world / "questions.jsonl")).quality([loaded.tower.expert_names])
    given = answer(
        loaded.model,
        loaded.processor,
        [world / "images" / row["image"] for row in rows],
        [row["text"] for row in rows],
        image_aspect_ratio=loaded.image_aspect_ratio,
    )
    right = sum(text == row["answer"] for text, row in zip(given, rows, strict=True))
    assert 0 < right < len(rows)
    assert quality.score == right / len(rows)
    assert quality.num_answers == len(rows)


def test_everything_frozen_runs_once_per_image_and_the_rest_once_per_set(trained, world):
    loaded = open_checkpoint(trained)
    calls = {"clip": 0, "depth": 0, "language": 0}

    def count(name):
        return lambda module, args, kwargs, output: calls.update({name: calls[name] + 1})

    loaded.tower.clip.register_forward_hook(count("clip"), with_kwargs=True)
    loaded.tower.experts["depth"].register_forward_hook(count("depth"), with_kwargs=True)
    loaded.model.model.language_model.register_forward_hook(count("language"), with_kwargs=True)
    data = read_probe_data(data=world / "questions.jsonl")  # 30 questions about 10 images
    told = []
    Probe(loaded, data, batch_size=5).quality([["depth"], [], ["cnn"]], progress=lambda *a: told.append(a))
    assert calls == {"clip": 2, "depth": 2, "language": 2 * 3 * 3}
    assert told == [(1, 2), (2, 2)]


def test_a_model_in_training_is_measured_as_in_use_and_trains_on(trained, world):
    loaded = open_checkpoint(trained)
    data = read_probe_data(data=world / "questions.jsonl", limit=6)
    expected = Probe(loaded, data).quality([["depth", "cnn"]])
    loaded.model.train()
    assert loaded.tower.tove_fusion.gate.expert_dropout > 0
    assert Probe(loaded, data).quality([["depth", "cnn"]]) == expected
    assert loaded.tower.tove_fusion.gate.training
    assert not loaded.tower.clip.training


def test_clip_only_has_the_empty_set(clip_only, world):
    loaded = open_checkpoint(clip_only)
    data = read_probe_data(data=world / "questions.jsonl")
    probe = Probe(loaded, data, batch_size=4)
    (quality,) = probe.quality([()])
    loss, score = stock_quality(loaded, questions_as_llava(world / "questions.jsonl"), world / "images")
    assert (quality.loss, quality.score) == (pytest.approx(loss, abs=1e-5), score)
    with pytest.raises(UserError, match="no attached expert `depth`"):
        probe.quality([["depth"]])


def test_no_language_model_or_no_answers_no_quality(checkpoints, world):
    loaded = open_checkpoint(checkpoints["tower"])
    probe = Probe(loaded, read_probe_data(data=world / "finetune.json"))
    (quality,) = probe.quality([()])
    assert (quality.loss, quality.score, quality.num_answers) == (None, None, 0)
    loaded = open_checkpoint(checkpoints["merged"])
    (quality,) = Probe(loaded, read_probe_data(images=world / "images")).quality([["cnn"]])
    assert quality.loss is None


def test_an_unknown_or_detached_expert_is_named(trained, world):
    loaded = open_checkpoint(trained)
    loaded.tower.detach("depth")
    data = read_probe_data(data=world / "questions.jsonl")
    with pytest.raises(UserError, match="no attached expert `depth`"):
        Probe(loaded, data).quality([["depth"]])


def test_broken_images_are_left_out_and_too_many_stop(trained, world, tmp_path):
    loaded = open_checkpoint(trained)
    rows = list(map(json.loads, (world / "questions.jsonl").read_text().splitlines()))
    (tmp_path / "bad.png").write_bytes(b"no image")
    for image in (world / "images").iterdir():
        (tmp_path / image.name).write_bytes(image.read_bytes())
    file = tmp_path / "with_bad.jsonl"
    bad = rows[0] | {"image": "bad.png"}
    file.write_text("\n".join(map(json.dumps, [rows[0], bad, bad | {"image": "gone.png"}, *rows[1:]])))
    probe = Probe(loaded, read_probe_data(data=file, image_folder=tmp_path), batch_size=2)
    (quality,) = probe.quality([["cnn"]])
    (expected,) = Probe(loaded, read_probe_data(data=world / "questions.jsonl")).quality([["cnn"]])
    assert quality.num_answers == expected.num_answers == len(rows)
    assert quality.loss == pytest.approx(expected.loss, abs=1e-5)
    assert set(probe.broken) == {"image bad.png", "image gone.png"}
    many = [bad | {"image": f"gone{index}.png"} for index in range(6)]
    file.write_text("\n".join(map(json.dumps, [*rows, *many])))
    with pytest.raises(DataError, match="6 broken samples or images, over the 5 allowed"):
        Probe(loaded, read_probe_data(data=file, image_folder=tmp_path)).quality([["cnn"]])
