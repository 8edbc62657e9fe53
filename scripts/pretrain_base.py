"""Pre-training of the base model: tove_fusion and a decoder's new cross-attention learn from captions, questions and
statements in one run.

    deepspeed scripts/pretrain_base.py --cfg-path projects/miniature/pretrain_base.yaml --options train.seed=1

Also `deepspeed --num_accelerators 2 ...` for two CPU ranks, or plain `python` for one. The same command goes on after
an interruption (`--options train.resume=false` starts over).

See docs/design.md, "Base model".
"""

import sys

from tove_lvlm.recipes.encoder_decoder import PRETRAIN
from tove_lvlm.train.launch import main

if __name__ == "__main__":
    sys.exit(main(PRETRAIN))
