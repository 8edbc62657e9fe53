"""What every task must have."""

import subprocess
import sys

import pytest

import tove_lvlm.eval.tasks  # noqa: F401
from tove_lvlm.eval.task import LIKELIHOOD, TASKS


def test_importing_the_package_registers_them_and_loads_nothing_heavy():
    code = (
        "import sys, tove_lvlm.eval.tasks; from tove_lvlm.eval.task import TASKS; "
        "print(*TASKS.names()); print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    )
    names, heavy = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()
    assert {"gqa", "pope", "textvqa", "textvqa_ocr", "vizwiz", "vqav2", "vsr", "vsr_likelihood"} <= set(names.split())
    assert heavy == "set()"


@pytest.mark.parametrize("name", TASKS.names())
def test_a_task_says_what_it_is(name):
    task = TASKS.get(name)
    assert task.name == name
    assert task.about
    assert task.source
    assert len(set(task.conventions)) == len(task.conventions) >= 1
    assert "{question}" in task.prompt
    assert task.layouts[0].labels[0].startswith("playground/data/eval/")
    assert (task.form == LIKELIHOOD) == bool(getattr(task, "choices", ()))
