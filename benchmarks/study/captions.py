"""Zero-shot captions of the miniature's base model: what they name of a scene, and CIDEr."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tove_lvlm.inference.batching import DecodingConfig
from tove_lvlm.inference.chat import Chat, answer
from tove_lvlm.provenance import commit, hardware
from tove_lvlm.world.scene import COLORS, SHAPES

from .comparison import pack_counts

PARTS = ("objects", "colors", "shapes", "distances")
DECODING = DecodingConfig(max_new_tokens=80, num_beams=3)
BATCH = 64
_OBJECT = re.compile(rf"({'|'.join(COLORS)}) ({'|'.join(SHAPES)})(?: (near|far|halfway))?")


def score_captions(talk: Chat, folder: Path) -> dict[str, Any]:
    """CIDEr (times 100), what captions recall (percent), and the first five of them.

    Args:
        talk: A base model.
        folder: Held-out scenes: `captions.jsonl` and `images/`.

    Returns:
        `cider`, `recall`, `captions`, and `by_scene`, how many objects each caption names with color and shape.
    """
    rows = read_lines(folder / "captions.jsonl")
    pictures = [folder / "images" / row["image"] for row in rows]
    ratio = talk.image_aspect_ratio
    said = answer(
        talk.model, talk.processor, pictures, [""] * len(rows), BATCH, image_aspect_ratio=ratio, decoding=DECODING
    )
    references = [row["caption"] for row in rows]
    return {
        "cider": cider(said, references),
        "recall": recall(said, references),
        "captions": dict(zip([row["image"] for row in rows[:5]], said[:5], strict=True)),
        "by_scene": [named(one, reference)["objects"] for one, reference in zip(said, references, strict=True)],
        "num_objects": sum(len(_objects(reference)) for reference in references),
    }


def evaluate(model: Path, world: Path, split: str = "heldout") -> dict:
    """A base model's captions as a row's score, `overall` the share of objects named with color and shape.

    Args:
        model: A model's folder.
        world: The data.
        split: `heldout`, or what something is chosen on.
    """
    found = score_captions(Chat.load(model, device="cpu"), world / split)
    share = found["recall"]["objects"] / 100
    return {
        "overall": share,
        "families": {"objects": {"accuracy": share, "n": found["num_objects"]}},
        "by_scene": pack_counts(found["by_scene"]),
        **{name: found[name] for name in ("cider", "recall", "captions")},
        "commit": commit(),
        "hardware": hardware(),
    }


def recall(said: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Percent of a reference's objects that a caption names, each with its color and shape; of its colors; of its
    shapes; and, of the objects that are named, how many with the right distance.

    Args:
        said: Captions.
        references: The scenes' own.
    """
    found: Counter[str] = Counter()
    there: Counter[str] = Counter()
    for caption, reference in zip(said, references, strict=True):
        found.update(named(caption, reference))
        objects = _objects(reference)
        there.update({"objects": len(objects), "distances": named(caption, reference)["objects"]})
        there.update({"colors": len({color for color, _ in objects}), "shapes": len({shape for _, shape in objects})})
    return {part: 100 * found[part] / max(1, there[part]) for part in PARTS}


def named(caption: str, reference: str) -> dict[str, int]:
    """How many objects of the reference a caption names, and how many colors, shapes and (of these objects) distances.

    Args:
        caption: What was said.
        reference: The scene's own.
    """
    given, right = _objects(caption), _objects(reference)
    both = given.keys() & right.keys()
    counts = {"objects": len(both), "distances": sum(given[thing] == right[thing] for thing in both)}
    for part, position in (("colors", 0), ("shapes", 1)):
        counts[part] = len({thing[position] for thing in given} & {thing[position] for thing in right})
    return counts


def _objects(caption: str) -> dict[tuple[str, str], str]:
    """(color, shape) -> distance; the comparison at a caption's end repeats two of the objects."""
    return {(color, shape): distance for color, shape, distance in _OBJECT.findall(caption.split(". ")[0])}


def cider(said: Sequence[str], references: Sequence[str]) -> float | None:
    """CIDEr as published (times 100), None where its tokenizer's Java or pycocoevalcap is absent."""
    from tove_lvlm.config import UserError
    from tove_lvlm.eval.metrics.caption import score_captions as published

    try:
        return 100 * published(said, [[reference] for reference in references]).metrics["CIDEr"]
    except (UserError, ImportError) as error:
        print(f"no CIDEr: {error}")
        return None


def read_lines(path: Path) -> list[dict]:
    """The rows of a JSON lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
