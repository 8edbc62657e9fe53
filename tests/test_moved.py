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


@pytest.mark.full
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


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("surgery.merge.distiller", "recipes.merge.distiller"),
        ("hosts.lmms_eval.decoding", "harnesses.lmms_eval.decoding"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_lay_in_a_package_that_moved(old, new):
    module = importlib.import_module(f"tove_lvlm.{old}")
    current = importlib.import_module(f"tove_lvlm.{new}")
    public = [name for name in vars(current) if not name.startswith("_")]
    assert public
    assert all(getattr(module, name) is getattr(current, name) for name in public)


def test_other_names_are_not_found():
    with pytest.raises(ModuleNotFoundError, match="tove_lvlm.lvlm.loadin"):
        importlib.import_module("tove_lvlm.lvlm.loadin")


def test_a_folder_that_is_left_over_hides_no_old_name(tmp_path, monkeypatch):
    """`git pull` leaves `__pycache__` where a package was: a package without a file, for Python."""
    import tove_lvlm.hosts

    (tmp_path / "lmms_eval" / "__pycache__").mkdir(parents=True)
    monkeypatch.setattr(tove_lvlm.hosts, "__path__", [*tove_lvlm.hosts.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "tove_lvlm.hosts.lmms_eval", raising=False)
    with pytest.warns(FutureWarning, match="harnesses.lmms_eval"):
        assert importlib.import_module("tove_lvlm.hosts.lmms_eval").TASKS.is_dir()
