"""How `tove_lvlm/eval` is laid out: imports go one way, every task in the folder is known, old names still work."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tove_lvlm.eval.tasks
from tove_lvlm.eval.tasks.base import TASKS

EVAL = Path(tove_lvlm.eval.__file__).parent
# What a module may import of `tove_lvlm.eval`; those at the top (running and comparing) may import all.
MAY_IMPORT = {"metrics": {"metrics"}, "io": {"io"}, "tasks": {"tasks", "metrics", "io"}}


def parts_imported(file: Path) -> set[str]:
    """Names beside `tove_lvlm/eval/__init__.py` that a file two levels below imports from."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 2:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("part", sorted(MAY_IMPORT))
def test_metrics_and_files_know_no_task_and_tasks_know_no_model(part):
    for file in (EVAL / part).glob("*.py"):
        assert parts_imported(file) <= MAY_IMPORT[part], file


def test_every_file_of_the_folder_registers_its_tasks():
    modules = {TASKS.get(name).__module__.rpartition(".")[2] for name in TASKS.names()}
    files = {file.stem for file in (EVAL / "tasks").glob("*.py")} - {"__init__", "base"}
    assert files == modules


def test_scorers_load_nothing_heavy():
    modules = sorted(f"tove_lvlm.eval.metrics.{file.stem}" for file in (EVAL / "metrics").glob("[!_]*.py"))
    code = f"import sys, {', '.join(modules)}; print({{'torch', 'transformers', 'numpy'}} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_the_old_name_of_the_tasks_module_warns_once():
    code = (
        "import warnings; warnings.simplefilter('always'); from tove_lvlm.eval.task import TASKS, Item, Layout, Score, "
        "Task; from tove_lvlm.eval.tasks import base; print(Task is base.Task, TASKS is base.TASKS)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
    assert done.stderr.count("FutureWarning") == 1
    assert "tove_lvlm.eval.tasks.base" in done.stderr
