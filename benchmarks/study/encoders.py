"""Further base encoders of the miniature, which are not shipped: trained here, of the shipped CLIP's size.

rich_clip    a CLIP on captions that say how far each object is, so a better one
siglip       a SigLIP, on the same captions: another network, without a class token, and another loss
"""

import sys
from pathlib import Path
from typing import Any

from tove_lvlm.provenance import commit, hardware

from .arguments import ROOT

SCENES = 24_000
"""As many as the shipped CLIP saw."""
RICH_CLIP, SIGLIP = "rich_clip", "siglip"


def folder(output: Path, name: str) -> Path:
    """Where an encoder lies in a benchmark's folder."""
    return output / name


def record(output: Path, name: str) -> Path:
    """Its training record, which is there when it is."""
    return output / f"{name}.json"


def entry(output: Path, name: str) -> dict[str, Any]:
    """What a tower's YAML says in place of the shipped CLIP: `clip` or `base`."""
    place = str(folder(output, name))
    if name == RICH_CLIP:
        return {"clip": {"pretrained": place, "select_layer": -2}}
    return {"base": {"family": "transformers", "pretrained": place, "layer": -2}}


def train(output: Path, name: str, steps: int) -> dict:
    """Train it by the code that trained the shipped CLIP, or that code's sibling.

    Args:
        output: The benchmark's folder.
        name: Of the encoder.
        steps: Optimizer steps; the shipped CLIP had 900.

    Returns:
        Its training record; `heldout` says what a linear map reads from its tokens.
    """
    sys.path.insert(0, str(ROOT / "scripts"))
    from miniature import clip, common, siglip

    def report(stage: str, done: int, total: int, note: str) -> None:
        if done % 100 == 0:
            print(f"{stage}: {done}/{total} {note}")

    stage = {RICH_CLIP: clip, SIGLIP: siglip}[name]
    pool = common.build_pool(num_train=SCENES)
    found = stage.train(pool, folder(output, name), report, clip.Captions(distances=True), steps)
    return {**found, "commit": commit(), "hardware": hardware()}
