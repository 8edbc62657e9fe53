"""Cost of a checkpoint without a ToVE tower."""

from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.cost import measure_cost


def test_plain_clip_and_the_mode_stays(clip_only):
    clip = open_checkpoint(clip_only).model.model.vision_tower.train()
    costs = measure_cost(clip, batch_size=1, repeats=1)
    assert list(costs) == ["clip", "tower"]
    assert costs["clip"].gflops == costs["tower"].gflops > 0
    assert clip.training
