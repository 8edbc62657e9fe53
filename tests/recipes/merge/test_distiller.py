"""What the student is compared with, and how far it has come."""

import pytest
import torch

from helpers import tiny_towers
from tove_lvlm import ToVEImageProcessor, build_tower
from tove_lvlm.config.merge import MergeConfig
from tove_lvlm.recipes.merge.distiller import Distiller
from tove_lvlm.recipes.merge.losses import token_loss
from tove_lvlm.recipes.merge.student import cut, whole_student
from tove_lvlm.recipes.merge.writing import plain_processor


def test_starts_as_clip_and_learns_only_what_is_read(tower):
    distiller = Distiller(tower, cut(whole_student(tower, None), tower.config.select_layer), MergeConfig()).train()
    t_clip_BND, t_fuse_BND = distiller.target(tiny_towers.pixels(3))
    assert torch.equal(distiller.tokens(tiny_towers.pixels(3)), t_clip_BND)
    out = distiller(tiny_towers.pixels(3))
    assert out.figures["gap"].item() == pytest.approx(1)
    out.loss.backward()
    trained = {name for name, p in distiller.named_parameters() if p.requires_grad}
    assert {name for name, p in distiller.named_parameters() if p.grad is not None} == trained
    assert all(name.startswith("student.") and ".layers.2." not in name for name in trained)
    assert len(distiller.student.encoder.layers) == 2
    assert not tower.training
    assert not torch.equal(t_clip_BND, t_fuse_BND)


def test_a_tower_of_more_pixels_teaches_a_student_of_clips(tiny_tower_yaml):
    tower = build_tower(tiny_tower_yaml, ["clip.input_size=64"])
    distiller = Distiller(tower, cut(whole_student(tower, None), tower.config.select_layer), MergeConfig())
    pixels_B3HW = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(distiller.tokens(pixels_B3HW), distiller.target(pixels_B3HW)[0])
    written = plain_processor(ToVEImageProcessor.for_tower(tower.config), tower.config.base_size)
    assert (written.size["shortest_edge"], written.crop_size["height"], written.crop_size["width"]) == (16, 16, 16)


def test_teacher_has_no_noise_and_no_dropout(tower):
    tower.tove_fusion.gate.expert_dropout = 0.5
    distiller = Distiller(tower, cut(whole_student(tower, None), -2), MergeConfig())
    tower.train()
    assert not torch.equal(distiller.target(tiny_towers.pixels(16))[1], distiller.target(tiny_towers.pixels(16))[1])
    distiller.train()
    assert torch.equal(distiller.target(tiny_towers.pixels(16))[1], distiller.target(tiny_towers.pixels(16))[1])


def test_target_is_measured_for_each_channel_over_all_tokens(tower):
    distiller = Distiller(tower, cut(whole_student(tower, None), -2), MergeConfig())
    batches = [tiny_towers.pixels(2, seed=0), tiny_towers.pixels(3, seed=1)]
    distiller.measure_target(batches)
    t_MD = distiller.target(torch.cat(batches))[1].flatten(0, 1)
    torch.testing.assert_close(distiller.mean_D, t_MD.mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(distiller.std_D, t_MD.std(dim=0, correction=0), rtol=1e-4, atol=1e-5)
    # In those units a loss does not depend on a channel's scale.
    s, t = distiller.tokens(batches[0]), distiller.target(batches[0])[1]
    expected = token_loss(
        (s - distiller.mean_D) / distiller.std_D, (t - distiller.mean_D) / distiller.std_D, "smooth_l1"
    )
    torch.testing.assert_close(distiller(batches[0]).loss, expected.mean())


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
def test_tokens_are_weighed_by_class_attention(tower):
    student = cut(whole_student(tower, None), -2)
    distiller = Distiller(tower, student, MergeConfig(token_weight="cls_attention"))
    loss = distiller(tiny_towers.pixels(3)).loss
    t_BND = distiller.target(tiny_towers.pixels(3))[1]
    loss_BN = token_loss(distiller.tokens(tiny_towers.pixels(3)), t_BND, "smooth_l1")
    expected = (loss_BN * distiller.attention.weight_BN).sum(dim=1).mean()
    torch.testing.assert_close(loss, expected)
    assert abs(loss - loss_BN.mean()) > 1e-4


def test_gap_is_what_is_left_of_the_way_from_clip_to_the_tower(tower):
    student = cut(whole_student(tower, None), -2)
    distiller = Distiller(tower, student, MergeConfig())
    with torch.no_grad():
        t_clip, t_fuse = distiller.target(tiny_towers.pixels(3))
        for share in (0.0, 0.5, 1.0):
            distiller.tokens = lambda pixels, share=share: t_clip + share * (t_fuse - t_clip)
            figures = distiller(tiny_towers.pixels(3)).figures
            assert figures["gap"].item() == pytest.approx((1 - share) ** 2, abs=1e-6)
    assert figures["cosine"].item() == pytest.approx(1)


def test_flipped_images_are_flipped_for_both(tower):
    student = cut(whole_student(tower, None), -2)
    distiller = Distiller(tower, student, MergeConfig(), horizontal_flip=True).train()
    seen = []
    tower.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    student.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["pixel_values"]), with_kwargs=True
    )
    torch.manual_seed(0)
    pixels = tiny_towers.pixels(16)
    distiller(pixels)
    assert torch.equal(seen[0], seen[1])
    flipped = [torch.equal(a, b.flip(-1)) for a, b in zip(seen[0], pixels, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(seen[0], pixels, strict=True)]
    assert 3 < sum(flipped) < 13
    assert [not f for f in flipped] == kept
    distiller.eval()(pixels)
    assert torch.equal(seen[2], pixels)
