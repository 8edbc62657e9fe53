"""Does a miniature model's gate tell objects from background, and could it read places off its input? Held-out scenes.

    python benchmarks/gate_on_objects.py outputs/miniature/tove

Prints, for each expert, its mean gate probability and how often it is first on tokens that an object covers at least
half, and on tokens that none touches; then how often a linear probe on CLIP's tokens (fitted on two thirds of the
scenes) says rightly in which half of the picture a token of the others lies.

Shapes: I images, N tokens, D width, K experts, Y X the token grid.
"""

import sys

import torch
import torch.nn.functional as F
from PIL import Image

from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.data.images import to_pixels
from tove_lvlm.viz.gates import find_gated_tower
from tove_lvlm.world.render import render
from tove_lvlm.world.scene import sample, split_seeds

NUM_SCENES = 300


@torch.inference_mode()
def main(folder: str) -> None:
    """Measure and print."""
    loaded = open_checkpoint(folder)
    tower = find_gated_tower(loaded)
    world = render(sample(split_seeds("heldout", NUM_SCENES)))
    images = [to_pixels(Image.fromarray(rgb), loaded.image_processor, loaded.image_aspect_ratio) for rgb in world.rgb]
    output = tower(torch.stack(images).to(next(tower.parameters())))
    gate_INK, side = output.gate_probs, tower.config.side
    cover_IYX = F.adaptive_avg_pool2d(torch.from_numpy(world.object_id >= 0).float(), side)
    kinds = {"object": cover_IYX.flatten(1) >= 0.5, "background": cover_IYX.flatten(1) == 0}
    for k, name in enumerate(tower.expert_names):
        cells = [f"{kind} {gate_INK[..., k][chosen_IN].mean():.3f}" for kind, chosen_IN in kinds.items()]
        firsts = [f"{(gate_INK.argmax(-1) == k)[chosen_IN].float().mean():.0%}" for chosen_IN in kinds.values()]
        higher = sum(
            float(gate_INK[i, kinds["object"][i], k].mean() > gate_INK[i, kinds["background"][i], k].mean())
            for i in range(NUM_SCENES)
        )
        print(f"{name:8s} {'  '.join(cells)}  first {' / '.join(firsts)}  higher on objects in {higher:.0f} scenes")
    print(f"left or right half, from CLIP's tokens: {probe_half(output.hidden_states[0].double(), side):.1%}")


def probe_half(t_clip_IND: torch.Tensor, side: int) -> float:
    """Accuracy of a ridge regression on the normalised tokens."""
    right_N = (torch.arange(side * side) % side >= side // 2).double()
    tokens_IND = F.pad(F.layer_norm(t_clip_IND, t_clip_IND.shape[-1:]), (0, 1), value=1.0)
    split = 2 * len(tokens_IND) // 3
    x_MD, y_M = tokens_IND[:split].flatten(0, 1), right_N.repeat(split)
    weight_D = torch.linalg.solve(x_MD.T @ x_MD + 1e-3 * torch.eye(x_MD.shape[1]).double(), x_MD.T @ y_M)
    said_IN = tokens_IND[split:] @ weight_D > 0.5
    return (said_IN == right_N.bool()).double().mean().item()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/gate_on_objects.py MODEL_FOLDER")
    main(sys.argv[1])
