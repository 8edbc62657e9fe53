"""`python -m tove_lvlm.harnesses.lmms_eval` prints the folder of task YAMLs, for lmms-eval's `--include_path`."""

import sys

from . import TASKS

sys.stdout.write(f"{TASKS}\n")
