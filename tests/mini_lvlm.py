"""The shipped miniature as an untrained LVLM whose answers depend on the image. For the tests of hosts and harnesses.

Its language model knows the world's words, so it answers the world's questions with yes, no, colours and shapes.
Shapes: V vocabulary, D width.
"""

import json
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent


def make_checkpoint(folder: Path) -> Path:
    """A merged folder, as stage 2 writes it."""
    from tove_lvlm.checkpoints.from_config import build_lvlm
    from tove_lvlm.config.model import MODEL_FILE, ModelConfig

    torch.manual_seed(0)
    llm, tower = ROOT / "tove_lvlm/assets/miniature/vicuna", ROOT / "projects/miniature/tower.yaml"
    model, processor = build_lvlm(ModelConfig(llm=str(llm), tower=str(tower)))
    with torch.no_grad():
        model.model.multi_modal_projector.linear_2.weight *= 3  # so that pictures are on the scale of words
        # Of itself it says no to nearly everything: let a random direction decide.
        yes, no = (processor.tokenizer.convert_tokens_to_ids(f"\u2581{word}") for word in ("yes", "no"))
        head_VD = model.lm_head.weight
        middle_D = (head_VD[yes] + head_VD[no]) / 2
        step_D = torch.randn(middle_D.shape, generator=torch.Generator().manual_seed(1)) * middle_D.std()
        head_VD[yes], head_VD[no] = middle_D + step_D, middle_D - step_D
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / MODEL_FILE).write_text(json.dumps({"image_aspect_ratio": "pad"}))
    return folder
