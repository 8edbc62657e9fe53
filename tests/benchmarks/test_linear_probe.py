"""The linear probe: classes that a line parts are found, others stay at chance, choices bound the answer."""

import json

import numpy as np
import pytest
import torch
from study.linear_probe import BASE, Question, asked, features, learned, probe

from helpers.pictures import paint
from tove_lvlm.config import read_yaml
from tove_lvlm.data.images import read_image, to_pixels
from tove_lvlm.tower.image_processing import ToVEImageProcessor

CLASSES = ("cat", "dog", "cup", "tree")


@pytest.fixture(scope="module")
def found():
    """Image -> part -> features: `base` says whether it is alive, `expert` the class, `noise` nothing."""
    rng = np.random.default_rng(0)
    images = {}
    for k in range(400):
        noise = rng.normal(size=(3, 6)).astype(np.float32)
        noise[0, 0] += 8.0 * (k % 4 < 2)
        noise[1, k % 4] += 8.0
        images[f"{k}"] = {BASE: noise[0], "expert": noise[1], "noise": noise[2]}
    return images


def questions(numbers, choices=()):
    return [Question(image=f"{k}", answer=CLASSES[k % 4], choices=choices) for k in numbers]


def test_a_probe_reads_what_the_features_hold(found):
    train, heldout = questions(range(200)), questions(range(200, 400), CLASSES)
    score = {
        parts: probe(train, heldout, found, parts) for parts in ((BASE,), ("expert",), ("noise",), (BASE, "noise"))
    }
    assert score["expert",]["accuracy"] > 0.99
    assert score[BASE,]["accuracy"] == pytest.approx(0.5, abs=0.1)
    assert score["noise",]["accuracy"] == pytest.approx(0.25, abs=0.1)
    low, high = score["noise",]["interval"]
    assert low < 0.25 < high
    assert (score[BASE,]["dims"], score[BASE, "noise"]["dims"]) == (6, 12)
    assert probe(train, heldout, found, (BASE, "expert"))["accuracy"] > 0.99


def test_only_the_choices_are_answers(found):
    train = questions(range(200))
    cats = [question for question in questions(range(200, 400), ("cat", "cup")) if question.answer == "cat"]
    assert probe(train, cats, found, (BASE,))["accuracy"] > 0.95, "who is alive among the two"
    unseen = [Question(image="200", answer="violin", choices=("cat", "violin"))]
    assert probe(train, unseen, found, (BASE,))["accuracy"] == 0


def test_questions_are_read(tmp_path):
    def talk(text, answer):
        return {"image": "a.png", "conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": answer}]}

    rows = [talk("<image>\nWhat is this?", "cat"), talk("<image>\nIs there a cat?", "yes")]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    assert learned(tmp_path / "train.json", "What is this?") == [Question(image="a.png", answer="cat")]
    row = {"image": "b.png", "answer": "dog", "family": "naming", "choices": ["cat", "dog"], "text": "What is this?"}
    lines = [json.dumps(row), json.dumps(row | {"family": "presence"})]
    (tmp_path / "held.jsonl").write_text("\n".join(lines) + "\n")
    assert asked(tmp_path / "held.jsonl", "naming") == [Question(image="b.png", answer="dog", choices=["cat", "dog"])]


def test_features_are_means_of_tokens_and_grids(tmp_path, tiny_tower):
    tower, processor = tiny_tower.eval(), ToVEImageProcessor.for_tower(tiny_tower.config)
    for k in range(3):
        paint(tmp_path / f"{k}.png", k)
    found = features(tower, tmp_path, ["2.png", "0.png", "2.png"], processor, direct_resize=False)
    assert list(found) == ["0.png", "2.png"]
    pixels_B3HW = to_pixels(read_image(tmp_path / "2.png"), processor, "square")[None]
    frozen = tower.encode_frozen(pixels_B3HW)
    np.testing.assert_allclose(found["2.png"][BASE], frozen.t_clip_BND[0].mean(0).numpy(), atol=1e-6)
    for name, grid_BCHW in frozen.grids.items():
        values = grid_BCHW[0]
        if values.shape[0] > 8:
            expected = values.mean((1, 2))
        else:
            expected = torch.nn.functional.adaptive_avg_pool2d(values, 5).flatten()
        np.testing.assert_allclose(found["2.png"][name], expected.numpy(), atol=1e-6)


def test_the_command_leaves_experts_out(tmp_path, tiny_tower_yaml, monkeypatch):
    import real_small_probe

    monkeypatch.chdir(tmp_path)
    root, rows, lines = tmp_path / "root", [], []
    for split in ("train", "heldout"):
        (root / "data" / split / "images").mkdir(parents=True)
        for k in range(20):
            paint(root / "data" / split / "images" / f"{k}.png", k % 4)
    for text, family in zip(real_small_probe.FAMILIES.values(), real_small_probe.FAMILIES, strict=True):
        for k in range(20):
            turns = [{"from": "human", "value": f"<image>\n{text}"}, {"from": "gpt", "value": CLASSES[k % 4]}]
            rows.append({"image": f"{k}.png", "conversations": turns})
            lines.append({"image": f"{k}.png", "answer": CLASSES[k % 4], "family": family, "choices": CLASSES})
    (root / "data" / "train" / "finetune.json").write_text(json.dumps(rows))
    (root / "data" / "heldout" / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    first, *others = read_yaml(tiny_tower_yaml)["experts"]
    arguments = ["--root", root, "--tower", tiny_tower_yaml, "--results", tmp_path]
    arguments += ["--without", *(other["name"] for other in others)]
    monkeypatch.setattr("sys.argv", ["real_small_probe.py", *map(str, arguments)])
    assert real_small_probe.main() == 0
    (found,) = json.loads((tmp_path / "linear_probe.json").read_text()).values()
    for family in real_small_probe.FAMILIES:
        assert set(found[family]) == {"train", "n", BASE, first["name"], f"{BASE}+{first['name']}"}
        assert found[family][BASE]["accuracy"] == 1, "the same pictures again"
