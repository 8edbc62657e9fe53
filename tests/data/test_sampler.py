"""Orders: equal to LLaVA's under the same generator, and a function of seed and epoch alone."""

import random

import pytest
import torch

from tove_lvlm.data.sampler import ModalityLengthSampler, SeededSampler, group_by_length, group_by_modality


def make_lengths(num_images, num_texts, seed=0):
    rng = random.Random(seed)
    lengths = [rng.randint(1, 500) for _ in range(num_images)] + [-rng.randint(1, 500) for _ in range(num_texts)]
    rng.shuffle(lengths)
    return lengths


@pytest.mark.parametrize(("num_images", "num_texts"), [(100, 60), (97, 61), (3, 2), (64, 1), (50, 0), (0, 51), (1, 0)])
@pytest.mark.parametrize(("batch_size", "num_batches"), [(4, 2), (3, 4), (1, 1), (16, 8)])
def test_grouping_equals_llavas(llava, num_images, num_texts, batch_size, num_batches):
    lengths = make_lengths(num_images, num_texts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)  # LLaVA's inner shuffles always draw from the global generator
        expected = llava.trainer.get_modality_length_grouped_indices(lengths, batch_size, num_batches, generator=None)
    generator = torch.Generator().manual_seed(5)
    assert group_by_modality(lengths, batch_size, num_batches, generator) == expected
    assert sorted(expected) == list(range(len(lengths)))


def test_length_grouping_equals_llavas(llava):
    lengths = [abs(length) for length in make_lengths(70, 31)]
    for size in (1, 2, 5):
        expected = llava.trainer.get_length_grouped_indices(lengths, 4, size, torch.Generator().manual_seed(1))
        assert group_by_length(lengths, 4, size, torch.Generator().manual_seed(1)) == expected


def test_batches_have_one_modality_and_similar_lengths():
    lengths = make_lengths(160, 96)
    order = list(ModalityLengthSampler(lengths, batch_size=4, num_batches=4, seed=0))
    assert sorted(order) == list(range(256))
    batches = [[lengths[index] for index in order[start : start + 4]] for start in range(0, 256, 4)]
    # 160 and 96 are whole runs of 16; the last run of each modality goes into the mixed end, 8 batches in all.
    assert all(len({length > 0 for length in batch}) == 1 for batch in batches[:-8])
    shuffled = [lengths[index] > 0 for index in SeededSampler(256, seed=0)]
    assert sum(len(set(shuffled[start : start + 4])) > 1 for start in range(0, 224, 4)) > 30
    totals = [sum(abs(length) for length in batch) for batch in batches[:-8]]
    runs = [totals[start : start + 4] for start in range(0, len(totals), 4)]
    # Dealt batches of a run differ by less than a sample; drawn at random they would differ by several hundred words.
    assert sum(max(run) - min(run) for run in runs) / len(runs) < 150


@pytest.mark.parametrize("grouped", [True, False])
def test_order_depends_on_seed_and_epoch_alone(grouped):
    def order(seed, epoch):
        sampler = (
            ModalityLengthSampler(make_lengths(40, 30), 2, 2, seed)
            if grouped
            else SeededSampler(num_samples=70, seed=seed)
        )
        sampler.set_epoch(epoch)
        assert len(sampler) == 70
        return list(sampler)

    torch.manual_seed(1)
    first = order(3, 1)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert order(3, 1) == first
    assert torch.equal(torch.get_rng_state(), state)
    orders = [order(seed, epoch) for seed in range(4) for epoch in range(4)]
    assert len({tuple(each) for each in orders}) == 16
    assert all(sorted(each) == list(range(70)) for each in orders)


def test_order_is_pinned():
    """A new order would make old checkpoints resume elsewhere in the data."""
    sampler = SeededSampler(10, seed=42)
    sampler.set_epoch(1)
    assert list(sampler) == [8, 0, 9, 2, 7, 3, 5, 1, 4, 6]


def test_zero_length_is_refused():
    with pytest.raises(ValueError, match="modality length of 0"):
        ModalityLengthSampler([3, 0, -2], 1, 1, 0)
