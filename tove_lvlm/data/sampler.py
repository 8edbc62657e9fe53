"""Order of the samples: shuffled, or grouped by modality and length as LLaVA's `group_by_modality_length`.

Both orders depend on (seed, epoch) alone. LLaVA draws from torch's global generator, so that its order depends on all
that ran before; given the same generator, the grouping here is LLaVA's.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """A CPU generator for one epoch. Neighbouring seeds and epochs do not share streams, as seed + epoch would."""
    state = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


class SeededSampler(Sampler[int]):
    """Shuffles all samples anew each epoch.

    Args:
        num_samples: samples of the data set.
        seed: seed, at least 0.
    """

    def __init__(self, num_samples: int, seed: int):
        self.num_samples = num_samples
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration; the trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        return iter(self._order(epoch_generator(self.seed, self.epoch)))

    def _order(self, generator: torch.Generator) -> list[int]:
        return torch.randperm(self.num_samples, generator=generator).tolist()


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
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int):
        self.sizes = list(sizes)
        self.shares = [max(1, round(size * weight)) for size, weight in zip(sizes, weights, strict=True)]
        super().__init__(sum(self.shares), seed)

    def _order(self, generator: torch.Generator) -> list[int]:
        indices: list[int] = []
        first = 0
        for source, (size, share) in enumerate(zip(self.sizes, self.shares, strict=True)):
            start, stop = self.epoch * share, (self.epoch + 1) * share
            for number in range(start // size, -(-stop // size)):  # of the times that the source is gone through
                order = torch.randperm(size, generator=epoch_generator(self.seed + 1 + source, number)).tolist()
                part = order[max(0, start - number * size) : stop - number * size]
                indices += [number * sum(self.sizes) + first + place for place in part]
            first += size
        return [indices[place] for place in torch.randperm(len(indices), generator=generator).tolist()]
