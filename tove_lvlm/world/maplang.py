"""The map language: a scene as 64 cells of words, which the mini Vicuna learns to read before it sees pictures.

Cells go row by row over an 8 x 8 grid. A cell is a sum of word embeddings: the colour, the shape and the depth word of
what covers it, or `empty`, and always its row word and its column word. A language model that has
learnt to answer from such cells only needs visual tokens that land where words live.

Shapes: S scenes, O object slots, N cells (64), V words of the map language.
"""

from __future__ import annotations

import numpy as np

from .scene import COLORS, DEPTH_RANGE, IMAGE_SIZE, SHAPES, Scenes

GRID = 8
NUM_DEPTHS = 8
EMPTY = "empty"
DEPTH_WORDS = tuple(f"d{k}" for k in range(1, NUM_DEPTHS + 1))
ROW_WORDS = tuple(f"r{k}" for k in range(1, GRID + 1))
COLUMN_WORDS = tuple(f"c{k}" for k in range(1, GRID + 1))
WORDS = (*COLORS, *SHAPES, *DEPTH_WORDS, EMPTY, *ROW_WORDS, *COLUMN_WORDS)
"""The words of the map language; the last axis of `cells`. d1 is the nearest, r1 the top row, c1 the left column."""

_POINTS = 4  # sample points per cell side
_SEEN = 0.3  # a cell reads as covered from this share on


def cover(scenes: Scenes) -> np.ndarray:
    """Which share of every cell each object covers, nearer objects in front of farther ones.

    Args:
        scenes: S scenes.

    Returns:
        share_SNO: float32 in [0, 1]. Every object holds at least _SEEN of the cell its centre lies in.
    """
    steps = (np.arange(GRID * _POINTS, dtype=np.float32) + 0.5) * (IMAGE_SIZE / (GRID * _POINTS))
    dx_SOP = (steps - scenes.x[:, :, None]) / np.maximum(scenes.size[:, :, None], 1e-3)
    dy_SOP = (steps - scenes.y[:, :, None]) / np.maximum(scenes.size[:, :, None], 1e-3)
    inside = (dx_SOP[:, :, None, :] ** 2 + dy_SOP[:, :, :, None] ** 2 <= 1.0) & scenes.valid[:, :, None, None]
    depth_SO = np.where(scenes.valid, scenes.depth, np.inf)
    front = np.where(inside, depth_SO[:, :, None, None], np.inf)
    seen = inside & (front <= front.min(axis=1, keepdims=True))
    num, slots = depth_SO.shape
    share = seen.reshape(num, slots, GRID, _POINTS, GRID, _POINTS).mean(axis=(3, 5), dtype=np.float32)
    share_SNO = np.ascontiguousarray(share.reshape(num, slots, GRID * GRID).transpose(0, 2, 1))
    row, slot = np.nonzero(scenes.valid)
    cell = _cell_of(scenes)[row, slot]
    share_SNO[row, cell, slot] = np.maximum(share_SNO[row, cell, slot], _SEEN)
    return share_SNO / np.maximum(share_SNO.sum(axis=-1, keepdims=True), 1.0)


def harden(share_SNO: np.ndarray) -> np.ndarray:
    """One object or none per cell: the one that covers most of it, if it covers enough to be seen.

    Args:
        share_SNO: What `cover` gives.

    Returns:
        share_SNO: the same shape, 0 or 1.
    """
    most = share_SNO.argmax(axis=-1)
    hard = np.zeros_like(share_SNO)
    np.put_along_axis(hard, most[..., None], 1.0, axis=-1)
    return hard * (share_SNO.max(axis=-1, keepdims=True) >= _SEEN * 0.9)


def cells(scenes: Scenes, share_SNO: np.ndarray | None = None) -> np.ndarray:
    """The map of every scene as weights on the words of the map language.

    An object's depth lies between two depth words and is shared between them, so that `d3` means 3 and not 2.6.

    Args:
        scenes: S scenes.
        share_SNO: Cover of the cells; default `harden(cover(scenes))`.

    Returns:
        weight_SNV: float32; `weight_SNV @ embedding_VD` are the 64 cells in embedding space.
    """
    if share_SNO is None:
        share_SNO = harden(cover(scenes))
    word = {name: k for k, name in enumerate(WORDS)}
    num, slots = scenes.depth.shape
    meaning = np.zeros((num, slots, len(WORDS)), np.float32)
    row, slot = np.nonzero(scenes.valid)
    meaning[row, slot, word[COLORS[0]] + scenes.color[row, slot]] = 1.0
    meaning[row, slot, word[SHAPES[0]] + scenes.shape[row, slot]] = 1.0
    low, high = np.log(DEPTH_RANGE)
    depth_bin = (np.log(scenes.depth[row, slot]) - low) / (high - low) * NUM_DEPTHS - 0.5
    depth_bin = np.clip(depth_bin, 0, NUM_DEPTHS - 1)
    lower = np.minimum(depth_bin.astype(np.int64), NUM_DEPTHS - 2)
    meaning[row, slot, word[DEPTH_WORDS[0]] + lower] = 1.0 - (depth_bin - lower)
    meaning[row, slot, word[DEPTH_WORDS[0]] + lower + 1] = depth_bin - lower
    weight_SNV = share_SNO @ meaning
    weight_SNV[..., word[EMPTY]] = 1.0 - share_SNO.sum(axis=-1)
    cell = np.arange(GRID * GRID)
    weight_SNV[:, cell, word[ROW_WORDS[0]] + cell // GRID] = 1.0
    weight_SNV[:, cell, word[COLUMN_WORDS[0]] + cell % GRID] = 1.0
    return weight_SNV


def _cell_of(scenes: Scenes) -> np.ndarray:
    """(S, O) index of the cell that holds each object's centre."""
    side = IMAGE_SIZE / GRID
    row = np.clip(scenes.y // side, 0, GRID - 1).astype(np.int64)
    return row * GRID + np.clip(scenes.x // side, 0, GRID - 1).astype(np.int64)
