"""Every host has what tove_lvlm/hosts/README.md says, and none imports another."""

import ast
import importlib
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tove_lvlm.hosts
from tove_lvlm.hosts.contract import REQUIRED, Host, HostProgram

FOLDER = Path(tove_lvlm.hosts.__file__).parent
ROOT = FOLDER.parents[1]
HOSTS = sorted(path.parent.name for path in FOLDER.glob("*/__init__.py"))
PACKAGE = "tove_lvlm.hosts"


def imported(file: Path) -> set[str]:
    """Full names of the modules that a file imports from, inside functions too."""
    package = ["tove_lvlm", *file.relative_to(FOLDER.parent).parts[:-1]]
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *(node.module or "").split(".")]).rstrip(".")
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


def test_there_are_hosts():
    assert {"llava", "lavis", "vllm"} <= set(HOSTS)


@pytest.mark.parametrize("name", HOSTS)
def test_no_host_imports_another(name):
    others = tuple(f"{PACKAGE}.{other}" for other in HOSTS if other != name)
    for file in (FOLDER / name).glob("*.py"):
        assert not [module for module in imported(file) if module.startswith(others)], file


@pytest.mark.parametrize("name", HOSTS)
def test_the_face_of_a_host(name):
    host = importlib.import_module(f"{PACKAGE}.{name}")
    assert isinstance(host, Host)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert host.EXTRA is None or host.EXTRA in extras
    if host.KEY is not None:
        assert f"`{host.KEY}: tove:PATH`" in (ROOT / "docs/hosts.md").read_text(encoding="utf-8")
    assert inspect.getmodule(host.register).__name__ == f"{PACKAGE}.{name}.register"
    parameters = inspect.signature(host.register).parameters.values()
    assert all(parameter.default is not parameter.empty for parameter in parameters)
    text = inspect.getdoc(host.register)
    assert "ImportError" in text
    assert "UserError" in text


@pytest.mark.parametrize("name", HOSTS)
def test_the_program_of_a_host(name):
    program = importlib.import_module(f"{PACKAGE}.{name}.__main__")
    assert isinstance(program, HostProgram)
    inspect.signature(program.main).bind(["a"])
    with pytest.raises(SystemExit) as ended:
        program.main(["--help"])
    assert ended.value.code == 0


@pytest.mark.parametrize("name", HOSTS)
def test_the_same_role_has_the_same_file(name):
    files = {file.stem for file in (FOLDER / name).glob("*.py")}
    assert files >= set(REQUIRED)
    shared = {stem for stem in files for other in HOSTS if other != name and (FOLDER / other / f"{stem}.py").is_file()}
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [stem for stem in shared if f"| `{stem}.py` |" not in readme] == []


@pytest.mark.parametrize("name", HOSTS)
def test_the_face_does_not_import_the_host(name):
    code = f"import sys, {PACKAGE}.{name}; print(sorted({{'llava', 'tinyllava', 'lavis', 'vllm'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert "FutureWarning" not in done.stderr


def test_the_old_name_of_lavis_register_warns_once():
    code = "from tove_lvlm.hosts.lavis.plugin import register as old; from tove_lvlm.hosts import lavis; "
    done = subprocess.run(
        [sys.executable, "-c", code + "print(old is lavis.register)"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "True"
    assert done.stderr.count("FutureWarning") == 1
