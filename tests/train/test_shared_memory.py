"""Too little /dev/shm for the workers' batches is a line before training, where it was a hang."""

import os
from types import SimpleNamespace

import pytest
import torch

from tove_lvlm.config import ConfigError
from tove_lvlm.train.shared_memory import check_shared_memory

MIB = 2**20


def collator(samples):
    pixels = torch.zeros(len(samples), MIB // 4)  # 1 MiB a sample
    return {"pixel_values": pixels, "sample_ids": ["a"], "more": [torch.zeros(MIB // 8, dtype=torch.int16)]}


@pytest.fixture
def free(monkeypatch):
    """`free(n)`: so many MiB are there."""
    return lambda n: monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=n * 256, f_frsize=4096))


def test_the_numbers_decide(free, tmp_path):
    data, shape = [0], {"batch_size": 8, "workers": 4, "ranks": 2, "folder": tmp_path}
    needed = 160  # 1.25 MiB, 8 samples, 2 batches ahead, 8 workers
    free(needed)
    check_shared_memory(data, collator, **shape)
    free(needed - 1)
    told = r"4 workers in each of 2 ranks hold up to 160 MiB of batches in .*, where 159 MiB are free; .* --shm-size=1g"
    with pytest.raises(ConfigError, match=told):
        check_shared_memory(data, collator, **shape)


def test_nothing_is_read_where_nothing_is_shared(free, tmp_path):
    free(0)
    check_shared_memory(None, None, 8, 0, 1, tmp_path)
    check_shared_memory(None, None, 8, 4, 1, tmp_path / "absent")


def test_a_run_looks_before_it_trains(train, world, free, capsys):
    free(0)
    assert train("pretrain", "train.dataloader_num_workers=2") == 2
    assert "2 workers in each of 1 ranks hold up to" in capsys.readouterr().err
    assert not (world / "out-pretrain" / "metrics.jsonl").exists()
