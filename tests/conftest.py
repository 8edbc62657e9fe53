"""Fixtures of every test. `tests/tiny.py` is importable as the plain module `tiny`."""

import copy
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def _every_test_is_warned_anew(monkeypatch):
    from tove_lvlm.config import parsing

    monkeypatch.setattr(parsing, "_WARNED", set())


@pytest.fixture(scope="session")
def tiny_tower_yaml(tmp_path_factory) -> Path:
    """YAML of a tower with four tiny random experts, weights beside it."""
    import tiny

    return tiny.make_tower_yaml(tmp_path_factory.mktemp("tiny_tower"))


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
