"""Files for the tests of eval/: the shared data, installed scorers of others as references, and small files."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from helpers.paths import SHARED


def shared(name: str) -> Path:
    """A file of the shared data; skips the test where it is not there."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the shared data file {name} is not beside this checkout")
    return path


def reference(package: str, module: str) -> ModuleType:
    """One file of an installed package, without importing the package; skips the test where it is not installed."""
    found = importlib.util.find_spec(package)
    if found is None:
        pytest.skip(f"{package} is not installed")
    path = Path(found.submodule_search_locations[0], *module.split(".")).with_suffix(".py")
    spec = importlib.util.spec_from_file_location(f"reference_{path.stem}", path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def write_json(path: Path, value) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_lines(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
