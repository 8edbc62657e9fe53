"""Order of the samples: shuffled, or grouped by modality and length as LLaVA's `group_by_modality_length`.

Both orders depend on (seed, epoch) alone. LLaVA draws from torch's global generator, so that its order depends on all
that ran before; given the same generator, the grouping here is LLaVA's.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """A CPU generator for one epoch. Neighbouring seeds and epochs do not share streams, as seed + epoch would."""
    state = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


SHARDS_AT_A_TIME = 16
"""Shards whose samples are shuffled together; of webdataset's usual 10,000 samples each."""


def shuffled(num_samples: int, generator: torch.Generator, shards: Sequence[int] = ()) -> list[int]:
    """All samples in random order.

    Args:
        num_samples: samples there are.
        generator: source of the shuffling.
        shards: samples of each shard in turn. They are shuffled, then the samples of `SHARDS_AT_A_TIME` of them, so
            that reads stay within a few large files. Empty where any sample is as good to read as any other.
    """
    if not shards:
        return torch.randperm(num_samples, generator=generator).tolist()
    starts = [0, *itertools.accumulate(shards)]
    turns = torch.randperm(len(shards), generator=generator).tolist()
    order: list[int] = []
    for first in range(0, len(turns), SHARDS_AT_A_TIME):
        chosen = turns[first : first + SHARDS_AT_A_TIME]
        members = [index for shard in chosen for index in range(starts[shard], starts[shard + 1])]
        order += [members[place] for place in torch.randperm(len(members), generator=generator).tolist()]
    return order


class SeededSampler(Sampler[int]):
    """Shuffles all samples anew each epoch.

    Args:
        num_samples: samples of the data set.
        seed: seed, at least 0.
        shards: as for `shuffled`.
    """

    def __init__(self, num_samples: int, seed: int, shards: Sequence[int] = ()):
        self.num_samples = num_samples
        self.seed = seed
        self.shards = list(shards)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration; the trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        return iter(self._order(epoch_generator(self.seed, self.epoch)))

    def _order(self, generator: torch.Generator) -> list[int]:
        return shuffled(self.num_samples, generator, self.shards)


class ModalityLengthSampler(SeededSampler):
    """Batches of one modality, with samples of similar length side by side.

    Args:
        modality_lengths: (S,) lengths, negative for text-only samples, never 0.
        batch_size: samples per rank and step.
        num_batches: batches that are drawn together: ranks times gradient accumulation steps.
        seed: seed, at least 0.

    Raises:
        ValueError: a length is 0.
    """

    def __init__(self, modality_lengths: Sequence[int] | np.ndarray, batch_size: int, num_batches: int, seed: int):
        super().__init__(len(modality_lengths), seed)
        self.modality_lengths = [int(length) for length in modality_lengths]
        if not all(self.modality_lengths):
            raise ValueError("a modality length of 0 has no sign; lengths must differ from 0")
        self.batch_size = batch_size
        self.num_batches = num_batches

    def _order(self, generator: torch.Generator) -> list[int]:
        return group_by_modality(self.modality_lengths, self.batch_size, self.num_batches, generator)


def group_by_modality(
    lengths: Sequence[int], batch_size: int, num_batches: int, generator: torch.Generator
) -> list[int]:
    """An order in which each run of batch_size * num_batches samples has one modality, but at the end.

    The last run of each modality, whole or not, goes to the end, where the two are mixed, as in LLaVA.

    Args:
        lengths: lengths, negative for text-only samples.
        batch_size: samples of a batch.
        num_batches: batches of a run.
        generator: source of the shuffling.
    """
    signs = {length > 0 for length in lengths}
    if len(signs) < 2:
        # LLaVA sorts text-only lengths with their sign here, shortest first; it is kept, the order being LLaVA's.
        return group_by_length(lengths, batch_size, num_batches, generator)
    run = batch_size * num_batches
    runs: list[list[int]] = []
    leftover: list[int] = []
    for with_image in (True, False):
        members = [index for index, length in enumerate(lengths) if (length > 0) == with_image]
        grouped = group_by_length([abs(lengths[index]) for index in members], batch_size, num_batches, generator)
        order = [members[index] for index in grouped]
        chunks = [order[start : start + run] for start in range(0, len(order), run)]
        runs += chunks[:-1]
        leftover += chunks[-1]
    shuffled = [runs[index] for index in torch.randperm(len(runs), generator=generator).tolist()]
    return [index for chunk in [*shuffled, sorted(leftover)] for index in chunk]


def group_by_length(lengths: Sequence[int], batch_size: int, num_batches: int, generator: torch.Generator) -> list[int]:
    """A shuffled order whose runs of batch_size * num_batches samples are dealt into batches of equal total length."""
    order = torch.randperm(len(lengths), generator=generator).tolist()
    run = batch_size * num_batches
    grouped: list[int] = []
    for start in range(0, len(order), run):
        chunk = sorted(order[start : start + run], key=lambda index: lengths[index], reverse=True)
        for batch in _deal(chunk, lengths, num_batches):
            grouped += batch
    return grouped


def _deal(indices: list[int], lengths: Sequence[int], num_batches: int) -> list[list[int]]:
    """Deal indices, longest first, each to the batch that is shortest so far and not full."""
    if len(indices) % num_batches:
        return [indices[start::num_batches] for start in range(num_batches)]
    size = len(indices) // num_batches
    batches: list[list[int]] = [[] for _ in range(num_batches)]
    totals = [0.0] * num_batches
    for index in indices:
        shortest = totals.index(min(totals))
        batches[shortest].append(index)
        totals[shortest] += lengths[index]
        if len(batches[shortest]) == size:
            totals[shortest] = float("inf")
    return batches


class MixSampler(SeededSampler):
    """Samples of several sources, each gone through `weight` times in an epoch, all shuffled together.

    A source with a weight below 1 shows another part of itself in each epoch. Indices are those of `TextMix`: they grow
    by the number of all samples each time that a source has been gone through.

    Args:
        sizes: samples of each source.
        weights: times that each is gone through in an epoch, above 0.
        seed: seed, at least 0.
        shards: for each source as for `shuffled`; none by default.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        weights: Sequence[float],
        seed: int,
        shards: Sequence[Sequence[int]] | None = None,
    ):
        self.sizes = list(sizes)
        self.shards_of = [list(of_source) for of_source in shards or [[] for _ in sizes]]
        self.shares = [max(1, round(size * weight)) for size, weight in zip(sizes, weights, strict=True)]
        super().__init__(sum(self.shares), seed)

    def _order(self, generator: torch.Generator) -> list[int]:
        parts = [iter(self._part(source)) for source in range(len(self.sizes))]
        turns = [source for source, share in enumerate(self.shares) for _ in range(share)]
        # Who is next is drawn, each source in its own order: as random as shuffling all, and shards stay together.
        return [next(parts[turns[place]]) for place in torch.randperm(len(turns), generator=generator).tolist()]

    def _part(self, source: int) -> Iterator[int]:
        """What an epoch takes of a source, in the order in which it comes."""
        size, share, first = self.sizes[source], self.shares[source], sum(self.sizes[:source])
        start, stop = self.epoch * share, (self.epoch + 1) * share
        for number in range(start // size, -(-stop // size)):  # of the times that the source is gone through
            order = shuffled(size, epoch_generator(self.seed + 1 + source, number), self.shards_of[source])
            for place in order[max(0, start - number * size) : stop - number * size]:
                yield number * sum(self.sizes) + first + place
