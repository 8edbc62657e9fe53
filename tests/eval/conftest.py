"""A tiny model that answers something, and the miniature's benchmarks."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, llm) -> Path:
    """A merged folder with a ToVE tower whose experts do something."""
    from helpers.tiny_checkpoints import build, save
    from helpers.tiny_towers import make_tower_yaml

    folder = tmp_path_factory.mktemp("eval")
    return save(folder / "tiny", *build(llm, tower=make_tower_yaml(folder / "tower", ["depth", "shapes"])))


@pytest.fixture(scope="session")
def loaded(checkpoint):
    from tove_lvlm.checkpoints import load_model

    return load_model(checkpoint)


@pytest.fixture(scope="session")
def benchmarks(tmp_path_factory) -> Path:
    """Root of the miniature's benchmarks about five pictures."""
    from tove_lvlm.world.benchmarks import write_benchmarks

    folder = tmp_path_factory.mktemp("world") / "root"
    write_benchmarks(folder, 5, seed=3)
    return folder
