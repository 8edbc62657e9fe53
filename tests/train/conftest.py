"""A tiny world for the tests of train/, and a way to run a stage inside the test's own process."""

import logging
import os
import shutil

import pytest
import tiny_lvlm


@pytest.fixture(scope="session")
def shared_world(tmp_path_factory):
    return tiny_lvlm.make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(shared_world, tmp_path):
    """The tiny world with output folders of the test's own."""
    for entry in shared_world.iterdir():
        if entry.is_dir():
            (tmp_path / entry.name).symlink_to(entry)
        else:
            shutil.copy(entry, tmp_path)
    for stage in tiny_lvlm.SCRIPTS:
        text = (tmp_path / f"{stage}.yaml").read_text()
        (tmp_path / f"{stage}.yaml").write_text(text.replace(str(shared_world), str(tmp_path)))
    return tmp_path


@pytest.fixture
def train(world, monkeypatch):
    """`train(stage, *options)`: run it here on one rank with plain torch; returns the exit code."""
    from tove_lvlm.train.launch import main

    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(world)
    handlers, level = logging.root.handlers[:], logging.root.level

    def run(stage: str, *options: str) -> int:
        arguments = ["--cfg-path", str(world / f"{stage}.yaml")]
        return main(tiny_lvlm.STAGES[stage], [*arguments, "--options", *options] if options else arguments)

    yield run
    logging.root.handlers[:], logging.root.level = handlers, level
    os.environ.pop("TOKENIZERS_PARALLELISM", None)
