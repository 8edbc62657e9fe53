"""Losses between tokens against plain loops."""

import pytest
import torch

from tove_lvlm.recipes.merge.losses import squared_distance, token_loss, weighted_mean


def tokens(seed: int, batch: int = 2, num: int = 5, width: int = 7) -> torch.Tensor:
    return torch.randn(batch, num, width, generator=torch.Generator().manual_seed(seed)) * 3


def test_losses_against_plain_loops():
    a, b = tokens(0), tokens(1)
    smooth, cosine, both = (token_loss(a, b, kind) for kind in ("smooth_l1", "cosine", "both"))
    for i in range(2):
        for n in range(5):
            d = (a[i, n] - b[i, n]).abs()
            expected = sum((0.5 * x * x if x < 1 else x - 0.5) for x in d.tolist()) / 7
            assert smooth[i, n].item() == pytest.approx(expected, rel=1e-5)
            dot = (a[i, n] @ b[i, n] / a[i, n].norm() / b[i, n].norm()).item()
            assert cosine[i, n].item() == pytest.approx(1 - dot, abs=1e-5)
    torch.testing.assert_close(both, smooth + cosine)
    assert token_loss(a.bfloat16(), b, "both").dtype == torch.float32


def test_weights_are_shares_within_an_image():
    loss_BN = torch.tensor([[1.0, 3.0], [10.0, 20.0]])
    assert weighted_mean(loss_BN, None).item() == 8.5
    # Image 1: (3 x 1 + 1 x 3) / 4 = 1.5; image 2: all on the first token.
    weight_BN = torch.tensor([[30.0, 10.0], [0.2, 0.0]])
    assert weighted_mean(loss_BN, weight_BN).item() == pytest.approx((1.5 + 10) / 2)


def test_squared_distance_is_of_each_image():
    a, b = tokens(0), tokens(1)
    expected = [sum(x * x for x in (a[i] - b[i]).flatten().tolist()) / 35 for i in range(2)]
    assert squared_distance(a, b).tolist() == pytest.approx(expected, rel=1e-5)
