r"""VLMEvalKit: a ToVE checkpoint among its models, without a change to its files.

    python -m tove_lvlm.harnesses.vlmevalkit --root VLMEvalKit --model FOLDER --name ToVE-Vicuna-7B -- \
        --data POPE VSR-zeroshot --judge exact_matching --work-dir outputs/vlmevalkit

runs VLMEvalKit's own `run.py` with what follows `--`, and `--model NAME` added where neither `--model` nor `--config`
stands there. A `--config` JSON names the class: {"model": {"any name": {"class": "ToVEVLM", "model_path": "FOLDER"}}}.
Several processes: `torchrun --nproc-per-node 8 -m tove_lvlm.harnesses.vlmevalkit ...`.

See docs/hosts.md, "VLMEvalKit".
"""

from .model import ToVEVLM
from .register import register

__all__ = ["ToVEVLM", "register"]
