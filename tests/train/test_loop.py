"""The order of samples: one for all ranks, and the same with any number of workers."""

import pytest

from helpers.training import metrics, same, weights
from tove_lvlm.train import loop


class Counting:
    def __init__(self, n):
        self.n, self.epoch = n, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return self.n

    def __iter__(self):
        return iter(range(self.n))


@pytest.mark.parametrize(("n", "batch", "world_size"), [(24, 2, 2), (25, 4, 3), (1, 2, 2), (7, 2, 1)])
def test_ranks_share_one_order_and_see_all_samples(n, batch, world_size):
    ranks = [list(loop.RankBatches(Counting(n), batch, rank, world_size)) for rank in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    assert all(len(b) == batch for batches in ranks for b in batches)
    joined = [i for step in zip(*ranks, strict=True) for b in step for i in b]
    assert joined[:n] == list(range(n))
    assert len(ranks[0]) == len(loop.RankBatches(Counting(n), batch, 0, world_size))


def test_workers_change_neither_order_nor_result(world, train):
    for workers in (0, 2):
        options = [f"train.dataloader_num_workers={workers}", f"train.output_dir={world}/w{workers}"]
        assert train("pretrain", *options, "train.max_steps=3", "train.save_steps=99") == 0
    assert metrics(world / "w0") == metrics(world / "w2")
    assert same(weights(world / "w0"), weights(world / "w2"))
