"""The plugin of lmms-eval: the folder of its tasks, its old name, and a host that is absent."""

import subprocess
import sys
from pathlib import Path

from tove_lvlm.harnesses.lmms_eval import TASKS


def test_the_folder_of_tasks_is_printed():
    done = subprocess.run([sys.executable, "-m", "tove_lvlm.harnesses.lmms_eval"], capture_output=True, text=True)
    assert Path(done.stdout.strip()) == TASKS
    assert {path.name for path in TASKS.rglob("*.yaml")} == {"vsr.yaml", "vsr_likelihood.yaml"}


def test_the_old_name_works_and_warns_once():
    command = [sys.executable, "-m", "tove_lvlm.hosts.lmms_eval"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == TASKS
    assert done.stderr.count("FutureWarning: `tove_lvlm.hosts.lmms_eval` is deprecated") == 1
    code = (
        "from tove_lvlm.hosts import lmms_eval; from tove_lvlm.harnesses.lmms_eval import manifest; "
        "from tove_lvlm.hosts.lmms_eval import vsr; print(lmms_eval.manifest is manifest, callable(vsr.picture))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
    assert done.stderr.count("FutureWarning") == 1


def test_without_lmms_eval_the_extra_is_named():
    code = (
        "import sys; sys.modules['lmms_eval'] = None\n"
        "from tove_lvlm.harnesses.lmms_eval import manifest\n"
        "try: manifest()\n"
        "except ImportError as error: print(error, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'tove-lvlm[lmms-eval]'" in done.stdout
    assert done.stdout.rstrip().endswith("False"), "finding the model loads nothing heavy"
