"""`python -m tove_lvlm.hosts.llava MODULE ARGS...`: any module of LLaVA or a relative, with the tower in place.

python -m tove_lvlm.hosts.llava llava.eval.model_vqa_loader --model-path ... --question-file ...
python -m tove_lvlm.hosts.llava llava.serve.cli --model-path ... --image-file ...
"""

import importlib.util
import runpy
import sys
from collections.abc import Sequence

import transformers

from ...config import UserError
from .machine import cuda_or_cpu
from .register import register

_USAGE = (
    "usage: python -m tove_lvlm.hosts.llava MODULE ARGS...   (such as llava.eval.model_vqa_loader --model-path ...)"
)


def main(argv: Sequence[str]) -> None:
    """Run a module as `python -m MODULE ARGS...` would.

    Args:
        argv: The module and its arguments. What a launcher puts in front (`--local_rank=0`) goes to the module.

    Raises:
        UserError: There is no such module, or the host is not one that the plugin knows.
    """
    ahead = [argument for argument in argv[:1] if argument.startswith("--local")]
    rest = list(argv[len(ahead) :])
    if not rest or rest[0] in ("-h", "--help"):
        print(_USAGE, file=sys.stderr if not rest else sys.stdout)
        raise SystemExit(0 if rest else 2)
    module = rest[0]
    host = module.partition(".")[0]
    if host not in ("llava", "tinyllava"):
        raise UserError(f"`{module}` is no module of LLaVA; {_USAGE}")

    register("tinyllava" if host == "tinyllava" else None)
    if importlib.util.find_spec(module) is None:
        raise UserError(f"the installed `{host}` has no module `{module}`")
    if module.startswith("llava.train."):
        _check_training()
    sys.argv = [module, *ahead, *rest[1:]]
    with cuda_or_cpu():
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def _check_training() -> None:
    """LLaVA's training script is written for transformers 4; nothing else of LLaVA is."""
    if not hasattr(transformers.trainer, "ALL_LAYERNORM_LAYERS"):
        raise UserError(
            f"LLaVA's own training script does not run under transformers {transformers.__version__}, where names of "
            "2024 are gone (ALL_LAYERNORM_LAYERS, Trainer's `tokenizer`, ...); train with "
            "scripts/pretrain_projector.py and scripts/finetune_vicuna.py, then `tove export --format llava`"
        )


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (UserError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
