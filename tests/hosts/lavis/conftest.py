"""A miniature world for the tests against the real LAVIS: pictures, captions, a tiny tower, BERT and OPT."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers import tiny_towers


@pytest.fixture(scope="session")
def lavis():
    """The real package with the plugin in place."""
    if importlib.util.find_spec("lavis") is None:
        pytest.skip("salesforce-lavis is not installed: uv pip install -e '.[lavis]' -c constraints.txt")
    from tove_lvlm.hosts.lavis import register

    register()
    import lavis

    return lavis


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> SimpleNamespace:
    """Folder `out` with data, BERT and OPT, and `tower`, the YAML of a tiny tower of 16 x 16 pixels."""
    from tove_lvlm.hosts.lavis.miniature import write_miniature

    out = tmp_path_factory.mktemp("lavis")
    write_miniature(out, scenes=13, heldout=4, opt_steps=2)
    return SimpleNamespace(out=out, tower=tiny_towers.make_tower_yaml(out / "tower", ["depth", "cnn"]))


@pytest.fixture
def bert(world, monkeypatch) -> Path:
    """The folder that stands for the hub's bert-base-uncased."""
    from tove_lvlm.hosts.lavis.bert import VARIABLE

    monkeypatch.setenv(VARIABLE, str(world.out / "bert"))
    return world.out / "bert"


@pytest.fixture
def opt(world) -> Path:
    return world.out / "opt"
