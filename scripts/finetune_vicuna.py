"""Stage 2 of ToVE_Vicuna: LoRA on the language model, projector and `tove_fusion` go on.

    deepspeed scripts/finetune_vicuna.py --cfg-path projects/miniature/finetune.yaml --options train.seed=1

Also `deepspeed --num_accelerators 2 ...` for two CPU ranks, or plain `python` for one. The same command goes on after
an interruption (`--options train.resume=false` starts over).

See docs/design.md, "Training".
"""

import sys

from tove_lvlm.recipes.llava import FINETUNE
from tove_lvlm.train.launch import main

if __name__ == "__main__":
    sys.exit(main(FINETUNE))
