"""Stage 1 of ToVE_Vicuna: the projector and `tove_fusion` learn from captions.

    deepspeed scripts/pretrain_projector.py --cfg-path projects/miniature/pretrain.yaml --options train.seed=1

Also `deepspeed --num_accelerators 2 ...` for two CPU ranks, or plain `python` for one. The same command goes on after
an interruption (`--options train.resume=false` starts over).

See docs/design.md, "Training".
"""

import sys

from tove_lvlm.recipes.llava import PRETRAIN
from tove_lvlm.train.launch import main

if __name__ == "__main__":
    sys.exit(main(PRETRAIN))
