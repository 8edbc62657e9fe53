"""Fine-tuning of a pre-trained base model, as on captions of COCO or questions of VQAv2.

    deepspeed scripts/finetune_base.py --cfg-path projects/tove_base/finetune_coco.yaml

Also `deepspeed --num_accelerators 2 ...` for two CPU ranks, or plain `python` for one. The same command goes on after
an interruption (`--options train.resume=false` starts over).

See docs/design.md, "Base model".
"""

import sys

from tove_lvlm.recipes.encoder_decoder import FINETUNE
from tove_lvlm.train.launch import main

if __name__ == "__main__":
    sys.exit(main(FINETUNE))
