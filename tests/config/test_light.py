"""Every schema is read without torch."""

import dataclasses
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import tove_lvlm.config
from tove_lvlm.config.llava import RunConfig
from tove_lvlm.config.merge import MergeRunConfig
from tove_lvlm.config.tower import TowerYaml

HEAVY = {"torch", "transformers", "deepspeed", "peft", "timm", "open_clip", "numpy"}
MODULES = sorted(path.stem for path in Path(tove_lvlm.config.__file__).parent.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("module", MODULES)
def test_no_module_of_config_imports_torch(module):
    code = f"import sys, tove_lvlm.config.{module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stdout.split())


def test_the_schemas_are_all_here():
    """A dataclass that `load` or `parse` is called with is defined in tove_lvlm.config or beside its expert."""
    for schema in (RunConfig, MergeRunConfig, TowerYaml):
        blocks = {hint.__module__ for hint in typing_leaves(schema)}
        assert all(name.startswith("tove_lvlm.config.") for name in blocks), blocks


def typing_leaves(schema: type) -> set[type]:
    """The dataclasses in a schema, itself among them."""
    found, waiting = set(), [schema]
    while waiting:
        hint = waiting.pop()
        if dataclasses.is_dataclass(hint) and hint not in found:
            found.add(hint)
            waiting += typing.get_type_hints(hint).values()
        waiting += [part for part in typing.get_args(hint) if part is not hint]
    return found
