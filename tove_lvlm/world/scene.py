"""Scenes of the miniature world: what stands where, under which light.

A scene has 2 to 4 objects, no two alike in both colour and shape. Depth is log-uniform and independent of the apparent
size, of the position, of colour and of shape, so that only haze, shading, shadows and occlusion tell it. Every number
of a scene is a pure function of its seed, by a counter-based hash: it does not depend on the batch it is drawn in.

Shapes: S scenes, O object slots (4).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

SHAPES = ("sphere", "box", "cone", "cylinder")
COLORS = ("red", "green", "blue", "yellow", "purple", "cyan")
SPLITS = ("train", "heldout")

IMAGE_SIZE = 64
"""Side of every picture and map in pixels."""
FOCAL = 64.0
"""Focal length in pixels: one metre at depth z metres spans FOCAL / z pixels."""
MAX_OBJECTS = 4
MIN_OBJECTS = 2
DEPTH_RANGE = (2.0, 8.0)
"""Metres."""
DEPTH_SPLIT = (DEPTH_RANGE[0] * DEPTH_RANGE[1]) ** 0.5
"""The geometric middle of DEPTH_RANGE: what is nearer counts as near, the rest as far."""
SIZE_RANGE = (6.0, 10.0)

_DEPTH_GAP = 0.15  # least distance between two depths of a scene, as a share of the log range (a factor 1.23)
_TRIES = 16  # candidate positions per object
_BORDER = 1.0
_BLOCK = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scenes:
    """A batch of S scenes, one array per property. Empty object slots hold -1 (integers) or 0 (floats).

    x and y are the objects' centres in pixels (y down), size their apparent radius in pixels, depth their distance in
    metres, yaw their turn about the vertical in radians. Colours are RGB in [0, 1]. `light_S3` points to the light
    in camera axes (x right, y up, z towards the camera).
    """

    seed: np.ndarray
    num_objects: np.ndarray
    shape: np.ndarray
    color: np.ndarray
    x: np.ndarray
    y: np.ndarray
    size: np.ndarray
    depth: np.ndarray
    yaw: np.ndarray
    albedo: np.ndarray
    light_S3: np.ndarray
    ambient: np.ndarray
    shadow: np.ndarray
    haze_density: np.ndarray
    haze_color_S3: np.ndarray
    ground_color_S3: np.ndarray
    checker: np.ndarray
    checker_phase_S2: np.ndarray
    horizon: np.ndarray
    camera_height: np.ndarray
    noise: np.ndarray

    def __len__(self) -> int:
        return len(self.seed)

    def __getitem__(self, index: int | slice | np.ndarray) -> Scenes:
        """The scenes at `index`; a single integer keeps the batch axis with length 1."""
        if isinstance(index, (int, np.integer)):
            index = np.array([range(len(self))[index]])
        return Scenes(**{field.name: getattr(self, field.name)[index] for field in dataclasses.fields(self)})

    def __iter__(self) -> Iterator[Scenes]:
        return (self[i] for i in range(len(self)))

    @property
    def valid(self) -> np.ndarray:
        """(S, 4) bool: which object slots are used; they are always the first `num_objects`."""
        return np.arange(MAX_OBJECTS) < self.num_objects[:, None]


def hash_uniform(seeds: np.ndarray, stream: str, *shape: int) -> np.ndarray:
    """Uniform numbers in [0, 1) that depend on seed, stream and position only.

    Args:
        seeds: (S,) integers.
        stream: a name; different names give independent numbers.
        shape: the shape per seed.

    Returns:
        (S, *shape) float64.
    """
    key = np.uint64(int.from_bytes(stream.encode()[:8].ljust(8, b"\0"), "little"))
    counter = np.arange(int(np.prod(shape, dtype=np.int64)), dtype=np.uint64)
    with np.errstate(over="ignore"):
        base = _mix(_mix(np.asarray(seeds).astype(np.uint64)) + _mix(np.asarray(key)))
        bits = _mix(base[:, None] + counter[None] * np.uint64(0x9E3779B97F4A7C15))
    return ((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(len(base), *shape)


def sample(seeds: np.ndarray) -> Scenes:
    """Draw one scene per seed.

    Args:
        seeds: (S,) non-negative integers.

    Raises:
        ValueError: the seeds are not a one-dimensional array of non-negative integers.
    """
    seeds = _checked(seeds)
    num, shape, color = _identities(seeds)
    used = np.arange(MAX_OBJECTS) < num[:, None]

    def spread(stream: str, low: float, high: float, *dims: int) -> np.ndarray:
        return low + (high - low) * hash_uniform(seeds, stream, *dims)

    size = spread("size", *SIZE_RANGE, MAX_OBJECTS)
    x, y = _positions(seeds, size, used)
    depth, horizon = _depths(seeds, num) * used, spread("horizon", 26.0, 38.0)
    # the ground lies below and behind every object, as near as that allows: objects hover, at most just above it
    lowest = np.max((y + 1.1 * size - horizon[:, None]) * depth / FOCAL, axis=1)
    camera_height = np.maximum(lowest, 1.2) + spread("camera", 0.2, 1.0)
    haze_base = spread("hazebase", 0.55, 0.85)
    azimuth, height = spread("azimuth", -1.0, 1.0), spread("height", 0.5, 1.1)
    light = np.stack([np.sin(azimuth) * np.cos(height), np.sin(height), np.cos(azimuth) * np.cos(height)], axis=-1)
    return Scenes(
        seed=seeds,
        num_objects=num,
        shape=shape,
        color=color,
        x=x * used,
        y=y * used,
        size=size * used,
        depth=depth,
        yaw=spread("yaw", 0.0, 2 * np.pi, MAX_OBJECTS) * used,
        albedo=spread("albedo", 0.88, 1.0, MAX_OBJECTS) * used,
        light_S3=light,
        ambient=spread("ambient", 0.45, 0.6),
        shadow=spread("shadow", 0.5, 0.75),
        haze_density=spread("density", 0.10, 0.16),
        haze_color_S3=np.clip(haze_base[:, None] + spread("hazetint", -0.09, 0.09, 3), 0, 1),
        ground_color_S3=np.clip(spread("ground", 0.3, 0.6)[:, None] + spread("grndtint", -0.08, 0.08, 3), 0, 1),
        checker=spread("checker", 0.9, 1.7),
        checker_phase_S2=spread("phase", 0.0, 10.0, 2),
        horizon=horizon,
        camera_height=camera_height,
        noise=spread("noise", 0.008, 0.022),
    )


def scene_bucket(seeds: np.ndarray) -> np.ndarray:
    """(S,) 0 or 1: a hash of WHICH objects a scene holds (colours and shapes, in any order). 0 is train, 1 held out.

    Two scenes with the same set of objects are always in the same bucket, so the splits share no scene's content.
    """
    num, shape, color = _identities(_checked(seeds))
    used = np.arange(MAX_OBJECTS) < num[:, None]
    pair = np.where(used, color.astype(np.int64) * len(SHAPES) + shape, 0)
    members = np.sum(np.where(used, np.int64(1) << pair, 0), axis=1)
    return (_mix(_mix(members.astype(np.uint64))) & np.uint64(1)).astype(np.int64)


def split_seeds(split: str, n: int, offset: int = 0, start: int = 0) -> np.ndarray:
    """The seeds number `offset` to `offset + n` of a split's endless list.

    Args:
        split: `train` or `heldout`; their scenes are disjoint by content, see `scene_bucket`.
        n: how many.
        offset: how many seeds of the list to leave out first.
        start: the first seed that the list may hold.

    Returns:
        (n,) int64, ascending.

    Raises:
        ValueError: unknown split, negative count, offset or start.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; expected one of {', '.join(SPLITS)}")
    if min(n, offset, start) < 0:
        raise ValueError(f"n, offset and start must not be negative, got n={n}, offset={offset}, start={start}")
    bucket, seeds_found, total = SPLITS.index(split), [], 0
    while total < offset + n:
        block = np.arange(start, start + _BLOCK, dtype=np.int64)
        matching = block[scene_bucket(block) == bucket]
        seeds_found.append(matching)
        total += len(matching)
        start += _BLOCK
    return np.concatenate(seeds_found or [np.zeros(0, np.int64)])[offset : offset + n]


def _mix(bits: np.ndarray) -> np.ndarray:
    """The splitmix64 finaliser."""
    with np.errstate(over="ignore"):
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _checked(seeds: np.ndarray) -> np.ndarray:
    seeds = np.asarray(seeds)
    if seeds.ndim != 1 or (seeds.size and seeds.dtype.kind not in "iu") or (seeds.size and seeds.min() < 0):
        raise ValueError(f"seeds must be a (S,) array of non-negative integers, got {seeds.dtype} {seeds.shape}")
    return seeds.astype(np.int64)


def _identities(seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number of objects (S,), shapes and colours (S, 4): distinct (colour, shape) pairs, all equally likely."""
    span = MAX_OBJECTS - MIN_OBJECTS + 1
    num = (MIN_OBJECTS + np.floor(hash_uniform(seeds, "count") * span)).astype(np.int8)
    order = np.argsort(hash_uniform(seeds, "pairs", len(SHAPES) * len(COLORS)), axis=1)[:, :MAX_OBJECTS]
    used = np.arange(MAX_OBJECTS) < num[:, None]
    shape = np.where(used, order % len(SHAPES), -1).astype(np.int8)
    color = np.where(used, order // len(SHAPES), -1).astype(np.int8)
    return num, shape, color


def _depths(seeds: np.ndarray, num: np.ndarray) -> np.ndarray:
    """(S, 4) metres: log-uniform, any two of a scene at least _DEPTH_GAP of the log range apart, in random order."""
    order = hash_uniform(seeds, "depth", MAX_OBJECTS)
    rank_of = np.where(np.arange(MAX_OBJECTS) < num[:, None], order, 2.0).argsort(axis=1).argsort(axis=1)
    free = 1.0 - _DEPTH_GAP * (num[:, None] - 1)
    log_low, log_high = np.log(DEPTH_RANGE)
    return np.exp(log_low + (log_high - log_low) * np.minimum(order * free + rank_of * _DEPTH_GAP, 1.0))


def _positions(seeds: np.ndarray, size: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres (S, 4) inside the picture. Each object takes its first candidate place that is clear of the earlier ones.

    Where none of the candidates is clear the one with the most room is taken, so a few objects overlap.
    """
    draw = hash_uniform(seeds, "place", 2, MAX_OBJECTS, _TRIES)
    margin = (1.1 * size + _BORDER)[:, None, :, None]
    position = margin + (IMAGE_SIZE - 2 * margin) * draw
    centre = np.zeros((len(seeds), 2, MAX_OBJECTS))
    rows = np.arange(len(seeds))
    for k in range(MAX_OBJECTS):
        free = np.full((len(seeds), _TRIES), np.inf)
        for j in range(k):
            gap = np.hypot(*(position[:, axis, k] - centre[:, axis, j, None] for axis in (0, 1)))
            free = np.minimum(free, np.where(used[:, j, None], gap - 1.05 * (size[:, k] + size[:, j])[:, None], np.inf))
        clear = free >= 0
        chosen = np.where(clear.any(axis=1), clear.argmax(axis=1), free.argmax(axis=1))
        centre[:, :, k] = position[rows, :, k, chosen]
    return centre[:, 0], centre[:, 1]
