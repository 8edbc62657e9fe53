"""The imports are those that CONTRIBUTING.md allows, inside functions too."""

import ast
import re
from pathlib import Path

import pytest

from helpers.paths import ROOT

PACKAGE = ROOT / "tove_lvlm"


def allowed() -> dict[str, set[str]]:
    """Package -> packages that it may import, from the table "Layers"; `*` stands for everything."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Layers")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.+?) \| (.+?) \|$", text, re.M)
    table = {}
    for packages, targets in rows:
        names = {"*"} if targets == "everything" else set(re.findall(r"`(\w+)`", targets))
        table |= {name.removesuffix(".py"): names for name in re.findall(r"`([\w.]+)`", packages)}
    return table


def imported(file: Path) -> set[str]:
    """Top-level names of `tove_lvlm` that a file of it imports."""
    package = ["tove_lvlm", *file.relative_to(PACKAGE).parts[:-1]]
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + (node.module or "").split(".")
            path = [part for part in base if part]
            names |= {path[1]} if len(path) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tove_lvlm."):
            names.add(node.module.split(".")[1])
    return names


PACKAGES = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file())


def test_the_table_names_every_package():
    assert set(PACKAGES) <= allowed().keys()


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_imports_only_what_stands_below_it(name):
    may = allowed()[name] | {"world": set(), "storage": set()}.get(name, {"config", "storage"})
    found = {
        (file.relative_to(PACKAGE).as_posix(), target)
        for file in (PACKAGE / name).rglob("*.py")
        for target in imported(file)
        if target in PACKAGES and target != name and target not in may
    }
    assert "*" in may or not found


def test_a_file_holds_one_idea():
    """Neither a fragment (the face of a package or of `python -m` apart) nor more than can be read at once."""
    lengths = {
        file.relative_to(PACKAGE).as_posix(): len(file.read_text(encoding="utf-8").splitlines())
        for file in PACKAGE.rglob("*.py")
    }
    fragments = [name for name, length in lengths.items() if length < 30 and not name.endswith("__.py")]
    assert not fragments
    assert not [name for name, length in lengths.items() if length > 350]
