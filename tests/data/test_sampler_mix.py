"""Sources with weights: how often each sample comes in an epoch, and that no order depends on anything but the seed."""

from collections import Counter

import pytest

from tove_lvlm.data.sampler import SHARDS_AT_A_TIME, MixSampler, SeededSampler

SIZES = [10, 5]


def drawn(weights, epochs, seed=3):
    sampler = MixSampler(SIZES, weights, seed)
    orders = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert len(orders[-1]) == len(sampler)
    return orders


def test_every_sample_comes_once_where_all_weights_are_one():
    first, second = drawn([1.0, 1.0], 2)
    assert sorted(first) == list(range(15))
    assert sorted(second) == list(range(15, 30)), "the same samples, of the second time through"
    assert first != [index - 15 for index in second]


def test_a_weight_is_the_times_that_a_source_is_gone_through():
    (order,) = drawn([0.5, 2.0], 1)
    of_each = Counter(index % 15 < 10 for index in order)
    assert of_each == {True: 5, False: 10}
    assert Counter(index % 15 for index in order if index % 15 >= 10) == dict.fromkeys(range(10, 15), 2)


def test_a_small_weight_shows_the_whole_source_in_the_end():
    orders = drawn([0.2, 1.0], 5)
    seen = [index for order in orders for index in order if index % 15 < 10]
    assert sorted(seen) == list(range(10))


@pytest.mark.parametrize("seed", [0, 7])
def test_an_epoch_has_its_order_whatever_was_drawn_before(seed):
    alone = MixSampler(SIZES, [0.7, 1.3], seed)
    alone.set_epoch(4)
    assert list(alone) == drawn([0.7, 1.3], 5, seed)[4]
    assert drawn([0.7, 1.3], 1, seed) != drawn([0.7, 1.3], 1, seed + 1)


def shards_of(order, size):
    return [index // size for index in order]


def test_samples_of_a_shard_stay_together():
    num, size = 3 * SHARDS_AT_A_TIME, 5
    sampler = SeededSampler(num * size, 3, [size] * num)
    order = list(sampler)
    assert sorted(order) == list(range(num * size))
    window = SHARDS_AT_A_TIME * size
    for start in range(0, len(order), window):
        read = shards_of(order[start : start + window], size)
        assert len(set(read)) == SHARDS_AT_A_TIME
        assert read != sorted(read), "shuffled within these shards"
    assert shards_of(order, size)[:window] != shards_of(range(num * size), size)[:window]
    sampler.set_epoch(1)
    assert list(sampler) != order


def test_shards_of_a_source_stay_together_in_a_mix():
    num, size = 2 * SHARDS_AT_A_TIME, 4
    total = num * size
    order = list(MixSampler([total, 50], [1.0, 1.0], 3, [[size] * num, []]))
    assert sorted(order) == list(range(total + 50))
    of_shards = [index for index in order if index < total]
    assert len(set(shards_of(of_shards[: total // 2], size))) == SHARDS_AT_A_TIME
    places = [place for place, index in enumerate(order) if index >= total]
    assert places[0] < 20, "the other source is spread over the epoch"
    assert places[-1] > len(order) - 20


def test_shards_of_unequal_size_come_once():
    assert sorted(SeededSampler(12, 0, [7, 1, 4])) == list(range(12))
