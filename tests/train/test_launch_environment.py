"""What the environment says of threads and ranks: used, or refused in one line, and never a traceback of torch."""

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from tove_lvlm.config import ConfigError
from tove_lvlm.train.launch import prepare_environment

NAMES = ("OMP_NUM_THREADS", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_SIZE", "LOCAL_WORLD_SIZE")


@pytest.fixture
def prepare(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "/nowhere")
    monkeypatch.setenv("PATH", os.environ["PATH"])
    config = SimpleNamespace(train=SimpleNamespace(deepspeed=None, fsdp=False, num_threads=None))

    def run(**environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        prepare_environment(config, None)
        return int(os.environ["OMP_NUM_THREADS"])

    yield run
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # known to monkeypatch, so that it is undone


def test_compiled_ops_go_into_a_folder_of_ones_own_where_home_cannot_be_written(prepare, monkeypatch, tmp_path):
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    prepare(HOME="/dev/null")
    own = tmp_path / f"tove_lvlm-{os.getuid()}"
    assert own in Path(os.environ["TORCH_EXTENSIONS_DIR"]).parents
    assert own.stat().st_mode & 0o077 == 0
    own.chmod(0o777)  # somebody else may put code there
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR")
    prepare(HOME="/dev/null")
    assert own not in Path(os.environ["TORCH_EXTENSIONS_DIR"]).parents
    assert tmp_path in Path(os.environ["TORCH_EXTENSIONS_DIR"]).parents
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "/nowhere")


@pytest.mark.parametrize(("text", "threads"), [("3", 3), ("2,1", 2), (" 4 ", 4)])
def test_threads_are_those_of_openmp(prepare, text, threads):
    assert prepare(OMP_NUM_THREADS=text) == threads


def test_without_them_the_cores_are_shared(prepare):
    cores = len(os.sched_getaffinity(0))
    assert prepare(OMP_NUM_THREADS="") == cores
    assert prepare(OMP_NUM_THREADS="", LOCAL_WORLD_SIZE=str(cores)) == 1


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"OMP_NUM_THREADS": "0"}, "OMP_NUM_THREADS is `0` in the environment; expected 1 or more"),
        ({"OMP_NUM_THREADS": "many"}, "OMP_NUM_THREADS is `many`"),
        ({"OMP_NUM_THREADS": "-1"}, "OMP_NUM_THREADS is `-1`"),
        ({"RANK": "1"}, "RANK is 1 and WORLD_SIZE is None in the environment, which do not go together"),
        ({"WORLD_SIZE": "2"}, "RANK is None and WORLD_SIZE is 2"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2 and WORLD_SIZE is 2"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK is `one` in the environment; expected a number"),
    ],
)
def test_what_means_nothing_is_one_line(prepare, environment, message):
    with pytest.raises(ConfigError, match=message):
        prepare(**environment)
