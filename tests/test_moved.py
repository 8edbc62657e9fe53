"""Modules of the first version are found under their old names, with one warning each."""

import importlib
import subprocess
import sys

import pytest

from tove_lvlm._moved import MOVED


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_an_old_name_holds_the_objects_of_the_new_one(old, new):
    sys.modules.pop(f"tove_lvlm.{old}", None)
    with pytest.warns(FutureWarning, match=f"tove_lvlm.{old}. is deprecated: what it held is in `tove_lvlm") as caught:
        module = importlib.import_module(f"tove_lvlm.{old}")
    assert len(caught) == 1
    current = [vars(importlib.import_module(f"tove_lvlm.{name}")) for name in new]
    public = {name for space in current for name in space if not name.startswith("_")}
    assert public
    assert all(any(getattr(module, name) is space.get(name) for space in current) for name in public)
    assert importlib.import_module(f"tove_lvlm.{old}") is module, "and no second warning"


def test_what_the_tutorials_of_the_first_version_import():
    code = (
        "from tove_lvlm.lvlm.loading import open_checkpoint, load_model; from tove_lvlm.lvlm.chat import Chat;"
        "from tove_lvlm.lvlm.graft import graft; from tove_lvlm.train.config import RunConfig, ModelConfig;"
        "from tove_lvlm.tower.configuration_yaml import FusionConfig, read_tower_yaml;"
        "from tove_lvlm.stage import LoopConfig;"
        "from tove_lvlm.surgery.merge import MergeStage"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("FutureWarning") == 7


def test_other_names_are_not_found():
    with pytest.raises(ModuleNotFoundError, match="tove_lvlm.lvlm.loadin"):
        importlib.import_module("tove_lvlm.lvlm.loadin")
