"""What the engine is given: everything that a YAML names is read once, and passed on typed."""

import json
from types import SimpleNamespace

import yaml

from helpers.paths import ROOT
from tove_lvlm.config import save_yaml
from tove_lvlm.config.deepspeed import DeepSpeedConfig
from tove_lvlm.config.tower import TowerConfig
from tove_lvlm.recipes.llava import PRETRAIN
from tove_lvlm.train import run as engine
from tove_lvlm.train.stage import load_run


def test_the_files_may_be_gone_once_they_are_read(world, monkeypatch):
    tower, deepspeed = world / "own_tower.yaml", world / "zero2.json"
    tree = yaml.safe_load((world / "tower" / "tower.yaml").read_text())
    for entry in tree["experts"]:
        entry["pretrained"] = str((world / "tower" / entry["pretrained"]).resolve())
    tree["clip"]["pretrained"] = str((world / "tower" / tree["clip"]["pretrained"]).resolve())
    tower.write_text(yaml.safe_dump(tree))
    deepspeed.write_text((ROOT / "projects" / "deepspeed" / "zero2.json").read_text())
    options = [f"model.tower={tower}", f"train.deepspeed={deepspeed}"]
    run = load_run(PRETRAIN, world / "pretrain.yaml", options)
    stated = json.loads(deepspeed.read_text())
    tower.unlink()
    deepspeed.unlink()

    assert isinstance(run.model.tower_config, TowerConfig)
    assert isinstance(run.train.deepspeed_config, DeepSpeedConfig)
    model = PRETRAIN.build(run).model
    assert model.model.vision_tower.expert_names == [entry["name"] for entry in tree["experts"]]
    arguments = SimpleNamespace()
    monkeypatch.setattr(engine, "TrainingArguments", lambda **values: arguments.__dict__.update(values))
    monkeypatch.setattr(engine.TrainingArguments, "__dataclass_fields__", {}, raising=False)
    engine.training_arguments(run)
    assert arguments.deepspeed["zero_optimization"] == stated["zero_optimization"]
    assert arguments.deepspeed is not run.train.deepspeed_config.settings, "transformers fills in its `auto`"


def test_what_was_read_is_not_written_into_run_yaml(world, tmp_path):
    run = load_run(PRETRAIN, world / "pretrain.yaml")
    save_yaml(run, tmp_path / "run.yaml")
    written = yaml.safe_load((tmp_path / "run.yaml").read_text())
    assert written["model"]["tower"] == run.model.tower
    assert not {"tower_config", "deepspeed_config"} & {key for block in written.values() for key in block}
    again = load_run(PRETRAIN, tmp_path / "run.yaml")
    assert again == run
