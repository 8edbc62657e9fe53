"""What is written down about a model's tower, and checked when it is opened."""

import json
import logging
import re
import shutil

import pytest
import transformers
import yaml
from typer.testing import CliRunner

from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.checkpoints.model_info import make_model_info, read_model_block, save_model_info
from tove_lvlm.checkpoints.relocate import relocate
from tove_lvlm.cli import app
from tove_lvlm.config import ConfigError, UserError
from tove_lvlm.config.model import MODEL_FILE
from tove_lvlm.storage import ASSETS


def test_a_tower_that_computes_otherwise_than_in_training_is_refused(built):
    """What was written down by an earlier version too, under the names of then."""
    from tove_lvlm.checkpoints.model_info import check_tower, make_model_info

    model, _ = built
    tower = make_model_info({}, model, "square")["tower"]
    fusion = {"kind", "gate", "transfer_scale", "transfer", "temperature"}
    assert tower.keys() == {*fusion, "select_layer", "expert_resample", "experts"}
    check_tower(model, {"tower": tower}, "here")
    then = {key: value for key, value in tower.items() if key != "gate"}
    check_tower(model, {"tower": then | {"gate_input": "tokens"}}, "here")
    with pytest.raises(ConfigError, match="here: the tower was trained with `gate` constant, .* now says token"):
        check_tower(model, {"tower": then | {"gate_input": "constant"}}, "here")
    with pytest.raises(ConfigError, match=r"trained with `temperature` 0\.5"):
        check_tower(model, {"tower": tower | {"temperature": 0.5}}, "here")


@pytest.mark.parametrize("key", ["transfer", "expert_resample"])
def test_what_was_trained_before_there_was_a_key_has_its_value_of_then(built, key):
    from tove_lvlm.checkpoints.model_info import check_tower, make_model_info

    model, _ = built
    tower = make_model_info({}, model, "pad")["tower"]
    before = {name: value for name, value in tower.items() if name != key}
    then, now = {"transfer": ("separate", "shared_out"), "expert_resample": ("bilinear", "bicubic")}[key]
    with pytest.raises(ConfigError, match=f"here: the tower was trained with `{key}` {then}, .* says {now}"):
        check_tower(model, {"tower": before}, "here")


@pytest.fixture
def moved(checkpoints, llm, tmp_path):
    """An adapter whose language model was moved since."""
    folder = shutil.copytree(checkpoints["adapter"], tmp_path / "adapter")
    info = json.loads((folder / MODEL_FILE).read_text())
    info["model"]["llm"] = str(tmp_path / "old")
    (folder / MODEL_FILE).write_text(json.dumps(info))
    return folder


def test_what_was_moved_is_named_with_the_key_that_says_where_it_is(moved, llm):
    told = r"refers to `.*/old`, which is not there any more; .* tove relocate .*/adapter --llm PLACE"
    with pytest.raises(UserError, match=told):
        open_checkpoint(moved)
    done = CliRunner().invoke(app, ["relocate", str(moved), "--llm", str(llm), "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["written"] == [str(moved / MODEL_FILE), str(moved / "adapter_config.json")]
    open_checkpoint(moved)
    assert json.loads((moved / "adapter_config.json").read_text())["base_model_name_or_path"] == str(llm)


def test_what_cannot_have_been_moved_is_one_line_and_changes_nothing(moved, checkpoints, tmp_path):
    before = {path.name: path.read_bytes() for path in moved.iterdir()}
    for folder, places, told in [
        (moved, {"llm": str(tmp_path / "none")}, "/none` does not exist"),
        (moved, {"clip": str(tmp_path)}, "refers to no `clip`; it refers to llm, tower"),
        (moved, {"vision_tower": str(tmp_path)}, "refers to no `vision_tower`"),
        (moved, {}, "say what was moved: --llm, --tower, --vision-tower, --clip"),
        (checkpoints["merged"], {"llm": str(tmp_path)}, r"holds its parts itself \(merged\)"),
    ]:
        with pytest.raises(UserError, match=told):
            relocate(folder, places)
    assert {path.name: path.read_bytes() for path in moved.iterdir()} == before


def test_a_tower_of_other_settings_is_not_taken_for_the_moved_one(moved, llm, tiny_tower_yaml, tmp_path):
    tree = yaml.safe_load(tiny_tower_yaml.read_text())
    for entry in [tree["clip"], *tree["experts"]]:
        entry["pretrained"] = str((tiny_tower_yaml.parent / entry["pretrained"]).resolve())
    (tmp_path / "same.yaml").write_text(yaml.safe_dump(tree))
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(tree | {"expert_resample": "bilinear"}))
    relocate(moved, {"llm": str(llm), "tower": str(tmp_path / "other.yaml")})
    with pytest.raises(ConfigError, match="the tower was trained with `expert_resample`"):
        open_checkpoint(moved)
    relocate(moved, {"tower": str(tmp_path / "same.yaml")})
    open_checkpoint(moved)


def test_what_the_package_ships_is_written_so_that_it_is_found_elsewhere(built, tmp_path):
    model, _ = built
    vicuna = ASSETS / "miniature" / "vicuna"
    info = make_model_info({"llm": str(vicuna), "tower": "/a/tower.yaml", "clip": None}, model, "pad")
    assert info["model"] == {"llm": "shipped:miniature/vicuna", "tower": "/a/tower.yaml", "clip": None}
    save_model_info(tmp_path, info)
    assert read_model_block(tmp_path).llm == str(vicuna)


@pytest.mark.parametrize(("then", "warns"), [("99.0", True), ("0.0.1", False), (None, False), ("new", False)])
def test_a_model_of_a_newer_version_is_named_and_loads(checkpoints, tmp_path, caplog, then, warns):
    folder = shutil.copytree(checkpoints["merged"], tmp_path / "model")
    info = json.loads((folder / MODEL_FILE).read_text()) if (folder / MODEL_FILE).is_file() else {}
    save_model_info(folder, info | {"written_by": {"tove-lvlm": then}})
    with caplog.at_level(logging.INFO):
        open_checkpoint(folder)
    assert ("was trained with tove-lvlm 99.0, and this is" in caplog.text) == warns
    (line,) = [record.message for record in caplog.records if "sha256" in record.message]
    assert re.fullmatch(rf"{folder}: a tower with depth, normals, shapes, cnn, sha256 [0-9a-f]{{16}}", line)


def test_what_wrote_a_model_is_written_down(built):
    model, _ = built
    written_by = make_model_info({}, model, "pad")["written_by"]
    assert written_by["transformers"] == transformers.__version__
    assert {"tove-lvlm", "torch", "python"} <= written_by.keys()
