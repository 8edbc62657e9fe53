"""The tests lie as the package does: who changes a module finds its tests by its path."""

from pathlib import Path

import pytest

from helpers.paths import ROOT

PACKAGE, TESTS = ROOT / "tove_lvlm", ROOT / "tests"
# Folders that are no package: what lies beside the package has its tests there.
OTHER = {"benchmarks", "docs", "fuzz", "helpers", "kill", "scripts"}
# A test is named after its module or subpackage, and may have a subject after it: `test_modeling_detach.py`.
EXCEPTIONS = {
    "test_import.py": "`import tove_lvlm` itself",
    "test_layers.py": "all packages: who imports whom",
    "test_mirror.py": "the tests",
    "test_projects.py": "projects/",
    "test_versions.py": "the whole installed package",
    "test_wheel.py": "the whole installed package",
    "config/test_light.py": "every module of config/",
    "data/test_llava_parity.py": "conversations, images and lengths against LLaVA's own functions",
    "eval/test_packages.py": "the layout of eval/",
    "eval/tasks/test_tasks.py": "every task",
    "experts/test_low_level.py": "catalogue/low_level.yaml, every family in it",
    "experts/test_own_expert.py": "an expert outside the package",
    "experts/test_real_networks.py": "real weights of several families",
    "hosts/test_another_base.py": "a tower on another base in all hosts",
    "hosts/test_input_size.py": "one key in all hosts",
    "hosts/test_transformers.py": "a host that needs no plugin",
    "recipes/test_another_base.py": "a tower on another base in every stage",
    "tower/test_miniature.py": "the tower in assets/",
    "world/test_vicuna.py": "the language model in assets/",
}
# What runs without pytest, whose configuration has the path.
CHANGES_PATH = {"fuzz/__main__.py"}
MODULES = [path for path in TESTS.rglob("*.py") if "__pycache__" not in path.parts]


def modules_of(folder: Path) -> set[str]:
    """Names of the modules and subpackages of a folder of the package; an underscore at the start does not count."""
    inside = [path for path in folder.glob("*") if path.suffix == ".py" or (path / "__init__.py").is_file()]
    return {path.stem.removeprefix("_") for path in inside}


def has_module(test: Path) -> bool:
    name = test.stem.removeprefix("test_")
    return any(f"{name}_".startswith(f"{module}_") for module in modules_of(PACKAGE / test.parent) if module)


def mirrored() -> list[Path]:
    """Test files that stand for a part of the package, from tests/ on."""
    found = [path.relative_to(TESTS) for path in MODULES if path.name.startswith("test_")]
    return sorted(path for path in found if path.parts[0] not in OTHER)


def test_every_test_lies_where_its_module_does():
    lost = [path.as_posix() for path in mirrored() if not has_module(path) and path.as_posix() not in EXCEPTIONS]
    assert not lost, f"no module of this path in tove_lvlm/: {lost}"


def test_exceptions_are_needed():
    needed = {path.as_posix() for path in mirrored() if not has_module(path)}
    assert not EXCEPTIONS.keys() - needed


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("train/test_loop.py", True),
        ("recipes/merge/test_writing.py", True),
        ("experts/families/test_dense_vit.py", True),
        ("tower/test_modeling_detach.py", True),
        ("tower/test_model.py", False),
        ("surgery/test_modeling.py", False),
        ("nowhere/test_loop.py", False),
    ],
)
def test_a_module_is_found_by_path_and_name(test, expected):
    assert has_module(Path(test)) == expected


def test_scripts_and_benchmarks_have_no_name_in_common():
    """Tests import both by name in one process."""
    scripts, benchmarks = (
        {path.stem for path in (ROOT / folder).iterdir() if path.suffix == ".py" or path.is_dir()} - {"__pycache__"}
        for folder in ("scripts", "benchmarks")
    )
    assert "fetch_test_weights" in scripts
    assert "study" in benchmarks
    assert not scripts & benchmarks


def test_no_file_is_too_long_and_none_changes_the_path():
    wrong = []
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        if (count := len(text.splitlines())) > 350:
            wrong.append(f"{path.relative_to(ROOT)} has {count} lines; split it by subject")
        if path.relative_to(TESTS).as_posix() in CHANGES_PATH:
            continue
        if "sys.path" + ".insert" in text or "sys.path" + ".append" in text:
            wrong.append(f"{path.relative_to(ROOT)} changes sys.path; helpers are in tests/helpers/")
    assert not wrong, "\n".join(wrong)
