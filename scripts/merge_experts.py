"""Merge a trained tower's experts into one plain CLIP, from images alone.

    deepspeed scripts/merge_experts.py --cfg-path projects/miniature/merge.yaml --options model.checkpoint=FOLDER

Also `deepspeed --num_accelerators 2 ...` for two CPU ranks, or plain `python` (or `tove merge`) for one. The same
command goes on after an interruption (`--options train.resume=false` starts over).

See docs/design.md, "Merge".
"""

import sys

from tove_lvlm.recipes.merge import MERGE
from tove_lvlm.train.launch import main

if __name__ == "__main__":
    sys.exit(main(MERGE))
