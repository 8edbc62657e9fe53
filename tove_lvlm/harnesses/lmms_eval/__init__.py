"""lmms-eval: the model `tove_llava` and the tasks that lmms-eval lacks.

    python -m lmms_eval --model tove_llava --model_args pretrained=FOLDER --tasks pope --batch_size 16
    python -m lmms_eval --model tove_llava --model_args pretrained=FOLDER --tasks tove_vsr \\
        --include_path "$(python -m tove_lvlm.harnesses.lmms_eval)"

lmms-eval finds `manifest` by the entry point `lmms_eval.models` and imports this module early. With that `tove_vision`
is known to transformers, and lmms-eval's own `--model llava_hf` runs a ToVE checkpoint too.

See docs/hosts.md, "lmms-eval".
"""

from pathlib import Path
from typing import Any

from ...registry import require

TASKS = Path(__file__).resolve().parent / "tasks"
"""Folder of task YAMLs, for `--include_path`."""


def manifest() -> Any:
    """What lmms-eval's registry wants to know.

    Returns:
        Its ModelManifest of `tove_llava`; the class behind it is imported when it is asked for.

    Raises:
        ImportError: lmms-eval is absent.
    """
    registry = require("lmms_eval.models.registry_v2", extra="lmms-eval")
    return registry.ModelManifest(
        model_id="tove_llava", simple_class_path="tove_lvlm.harnesses.lmms_eval.model.ToVELlava", aliases=("tove",)
    )
