"""A second base encoder: a CLIP of the same size, trained longer and on captions that say how far each object is."""

import sys
from pathlib import Path

from tove_lvlm.provenance import commit, hardware

from .arguments import ROOT

SCENES = 24_000
"""As many as the shipped CLIP saw."""
NAME = "rich_clip"


def folder(output: Path) -> Path:
    """Where it lies in a study's folder."""
    return output / NAME


def record(output: Path) -> Path:
    """Its training record, which is there when it is."""
    return output / f"{NAME}.json"


def train(output: Path, steps: int) -> dict:
    """Train it by the code that trained the shipped CLIP.

    Args:
        output: The study's folder.
        steps: Optimizer steps; the shipped CLIP had 900.

    Returns:
        Its training record; `heldout` says what a linear map reads from its tokens.
    """
    sys.path.insert(0, str(ROOT / "scripts"))
    from miniature import clip, common

    def report(stage: str, done: int, total: int, note: str) -> None:
        if done % 100 == 0:
            print(f"{stage}: {done}/{total} {note}")

    pool = common.build_pool(num_train=SCENES)
    found = clip.train(pool, folder(output), report, clip.Captions(distances=True), steps)
    return {**found, "commit": commit(), "hardware": hardware()}
