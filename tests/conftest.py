"""Fixtures of every test: the tiny tower, language model and LVLM, its checkpoints, the command."""

import copy
import logging
import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

LONGEST_FIRST = ("test_demo.py", "train/test_launch.py", "recipes/merge/test_stage.py")
"""Files of more than a minute: two workers that each take a file at a time then end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the order of all else stays."""
    root = Path(__file__).parent
    places = {root / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Take away what DeepSpeed's killed ranks leave in shared memory, 69 MB each; once, after all workers."""
    if not hasattr(session.config, "workerinput"):
        from helpers.shared_memory import remove_unused_buffers

        remove_unused_buffers()


@pytest.fixture(scope="session", autouse=True)
def _own_state_folder(tmp_path_factory):
    """The key that signs checkpoints is not the developer's own, and the same in the processes that a test starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOVE_STATE_DIR", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def _every_test_is_warned_anew(monkeypatch):
    from tove_lvlm.config import parsing

    monkeypatch.setattr(parsing, "_WARNED", set())


@pytest.fixture(scope="session")
def tiny_tower_yaml(tmp_path_factory) -> Path:
    """YAML of a tower with four tiny random experts, weights beside it."""
    from helpers.tiny_towers import make_tower_yaml

    return make_tower_yaml(tmp_path_factory.mktemp("tiny_tower"))


@pytest.fixture(scope="session")
def _built_tiny_tower(tiny_tower_yaml):
    import torch

    from tove_lvlm import build_tower

    torch.manual_seed(0)
    return build_tower(tiny_tower_yaml)


@pytest.fixture
def tiny_tower(_built_tiny_tower):
    """That tower, built, at its start; each test has its own copy."""
    return copy.deepcopy(_built_tiny_tower)


@pytest.fixture(scope="session")
def llm(tmp_path_factory) -> Path:
    """Folder of the tiny language model."""
    from helpers.tiny_lvlm import make_llm

    return make_llm(tmp_path_factory.mktemp("llm"))


@pytest.fixture
def built(llm, tiny_tower_yaml):
    """(model, processor) of the tiny LVLM with the tiny tower, `tove_fusion` awake."""
    from helpers.tiny_checkpoints import build

    return build(llm, tower=tiny_tower_yaml)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory, llm, tiny_tower_yaml) -> dict[str, Path]:
    """Kind (`tower`, `stage1`, `adapter`, `merged`) -> folder of one and the same tiny LVLM. Not to be changed."""
    from helpers.tiny_checkpoints import make_checkpoints

    return make_checkpoints(tmp_path_factory.mktemp("checkpoints"), llm, tiny_tower_yaml)


@pytest.fixture(scope="session")
def clip_only(tmp_path_factory, llm, tiny_tower_yaml) -> Path:
    """A merged folder with a plain CLIP in the tower's place. Not to be changed."""
    from helpers.tiny_checkpoints import build, save

    made = build(llm, vision_tower="clip", clip=tiny_tower_yaml.parent / "clip")
    return save(tmp_path_factory.mktemp("clip_only") / "merged", *made)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """Folder of `pretrain.json`, `finetune.json` and the 24 pictures in `images/`. Not to be changed."""
    from helpers.tiny_lvlm import make_data

    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def one_rank(monkeypatch):
    """For training inside this process: one rank, one thread, no GPU; what a run sets here is put back."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:], logging.root.level = handlers, level
    os.environ.pop("TOKENIZERS_PARALLELISM", None)


@pytest.fixture
def tove(monkeypatch, capsys):
    """The command `tove`, called in this process: arguments to (exit code, stdout, stderr)."""
    from tove_lvlm import cli

    def tove(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tove", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return tove
