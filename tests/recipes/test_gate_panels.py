"""The gate's panels in tensorboard: at which steps, of which pictures, and a training that is the same without them."""

import io
import random
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers.training import metrics, same, weights
from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.recipes import gate_panels
from tove_lvlm.recipes.llava import FINETUNE
from tove_lvlm.train.run import build_trainer
from tove_lvlm.train.stage import load_run
from tove_lvlm.viz.gates import gates_of_images
from tove_lvlm.viz.gates_plot import common_scale, gate_panel
from tove_lvlm.viz.style import rendered

ON = ["train.report_to=tensorboard", "train.gate_panels_steps=2"]
STEPS = ["train.max_steps=3", "train.save_steps=99"]


@pytest.fixture(autouse=True)
def _two_pictures(monkeypatch):
    monkeypatch.setattr(gate_panels, "NUM_PICTURES", 2)


def images(folder) -> dict[str, list]:
    """Name -> (step, pixels) of the images in a run's events."""
    (events,) = folder.rglob("events.out.tfevents.*")
    found = EventAccumulator(str(events), size_guidance={"images": 0})
    found.Reload()
    return {
        name: [(one.step, np.asarray(Image.open(io.BytesIO(one.encoded_image_string)))) for one in found.Images(name)]
        for name in found.Tags()["images"]
    }


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_training_is_the_same_to_the_bit(world, train, stage):
    """With LoRA's and the experts' dropout, which draw at every step, and random states that end the same."""
    states = []
    for name, options in (("without", ["train.report_to=tensorboard"]), ("with", ON)):
        assert train(stage, *STEPS, *options, f"train.output_dir={world}/{name}") == 0
        states.append((random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()))
    assert metrics(world / "with") == metrics(world / "without")
    assert same(weights(world / "with"), weights(world / "without"))
    assert states[0] == states[1]
    drawn = images(world / "with")
    assert list(drawn) == ["gate/0_0.png", "gate/1_1.png"]
    assert all([step for step, _ in shown] == [2, 3] for shown in drawn.values())
    assert images(world / "without") == {}


def test_the_last_panel_is_that_of_the_trained_model(world, train):
    paths = [world / "data" / "images" / f"{number}.png" for number in (7, 9)]
    named = f"train.gate_panels_images=[{paths[0]},{paths[1]}]"
    assert train("pretrain", *STEPS, "train.report_to=tensorboard", "train.gate_panels_steps=100", named) == 0
    out = world / "out-pretrain"
    gates = list(gates_of_images(open_checkpoint(out), paths))
    drawn = images(out)
    assert list(drawn) == ["gate/0_7.png", "gate/1_9.png"]
    for (name, shown), one in zip(drawn.items(), gates, strict=True):
        ((step, pixels),) = shown
        assert step == 3
        expected = rendered(gate_panel(one, name.partition("_")[2], common_scale(gates)), 100)
        assert pixels.shape == expected.shape
        assert np.abs(pixels.astype(float) - expected).mean() < 0.05
    assert yaml.safe_load((out / "run.yaml").read_text())["train"]["gate_panels_images"] == [
        str(path.resolve()) for path in paths
    ]


def test_nothing_of_it_is_in_the_expert_cache(world, train):
    for name, options in (("with", ON), ("without", [])):
        cache = f"train.expert_cache={world}/cache-{name}"
        outside = f"train.gate_panels_images=[{world}/new.png]"
        Image.effect_noise((40, 30), 60).convert("RGB").save(world / "new.png")
        assert train("pretrain", *STEPS, *options, outside, cache, f"train.output_dir={world}/{name}") == 0
    assert metrics(world / "with") == metrics(world / "without")
    sizes = [
        sorted(path.stat().st_size for path in (world / f"cache-{name}").rglob("*")) for name in ("with", "without")
    ]
    assert sizes[0] == sizes[1]
    assert [step for step, _ in images(world / "with")["gate/0_new.png"]] == [2, 3]


def test_a_resumed_run_draws_what_is_left(world, train):
    assert train("pretrain", *ON[:1], "train.max_steps=2", "train.save_steps=2") == 0
    for file in (world / "out-pretrain").rglob("events.out.tfevents.*"):
        file.unlink()
    assert train("pretrain", *ON, "train.max_steps=5", "train.save_steps=99") == 0
    assert [step for step, _ in images(world / "out-pretrain")["gate/0_0.png"]] == [4, 5]


def test_model_modes_recorder_and_cache_are_as_before(world, train, monkeypatch):
    config = load_run(FINETUNE, world / "finetune.yaml", [*ON, f"train.expert_cache={world}/cache"])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    trainer, setup = build_trainer(FINETUNE, config)
    modes = {name: module.training for name, module in trainer.model.named_modules()}
    cache = trainer.recorder.tower.feature_cache
    drawn = setup.pictures.draw()
    assert [picture.ndim for picture in drawn.values()] == [3, 3]
    assert {name: module.training for name, module in trainer.model.named_modules()} == modes
    assert trainer.recorder.last is None
    assert trainer.recorder.tower.feature_cache is cache
    assert cache is not None
    setup.close()


def test_the_base_model_draws_too_and_crops_nothing(base_world, train_base):
    assert train_base("pretrain_base", "train.max_steps=1", "train.save_steps=99", *ON) == 0
    out = base_world / "out-pretrain_base"
    assert {name: [step for step, _ in shown] for name, shown in images(out).items()} == {
        "gate/0_0.png": [1],
        "gate/1_1.png": [1],
    }


def test_who_has_no_gate_is_refused(world, train, capsys):
    assert train("pretrain", *ON, "model.vision_tower=clip") == 2
    message = "error: `train.gate_panels_steps` draws the gate, and a plain CLIP is the vision tower; leave it out\n"
    assert capsys.readouterr().err.endswith(message)
    assert not (world / "out-pretrain" / "metrics.jsonl").exists()


@pytest.mark.parametrize(("module", "extra"), [("matplotlib.figure", "viz"), ("tensorboard", "train")])
def test_an_absent_package_is_named_before_the_training(world, train, capsys, monkeypatch, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    assert train("pretrain", *ON) == 1
    assert f"pip install 'tove-lvlm[{extra}]'" in capsys.readouterr().err
    assert not (world / "out-pretrain" / "metrics.jsonl").exists()


def test_a_picture_that_cannot_be_read_is_named(world, train, capsys):
    (world / "broken.png").write_bytes(b"no picture")
    assert train("pretrain", *ON, f"train.gate_panels_images=[{world}/broken.png]") == 2
    assert "broken.png" in capsys.readouterr().err
    assert train("pretrain", *ON, "train.gate_panels_images=[./absent.png]") == 2
    assert "`train.gate_panels_images`" in capsys.readouterr().err
