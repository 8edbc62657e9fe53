"""Caption metrics as pycocoevalcap defines them: CIDEr, BLEU-1..4, METEOR, ROUGE-L and SPICE.

A score depends on which images are scored together (CIDEr weighs an n-gram by the number of images whose references
have it, BLEU counts over all captions), so a part of a benchmark is scored from its own images, as the benchmarks do.

See docs/evaluation.md, "Captions".
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...registry import require
from . import caption_java
from .score import Score


class _Captions(NamedTuple):
    """Tokenised captions of some images, with the references of each."""

    candidates: list[str]
    references: list[list[str]]


def score_captions(
    candidates: Sequence[str], references: Sequence[Sequence[str]], groups: Sequence[str] | None = None
) -> Score:
    """Score one caption for each image against the image's references.

    Args:
        candidates: One caption for each image; an empty one is scored as such.
        references: At least one reference for each image.
        groups: The part of the benchmark that each image belongs to; none or "" is no part.

    Returns:
        Metrics under pycocoevalcap's names and in its units: CIDEr in [0, 10], all others in [0, 1]. SPICE is there
        only when its parser is; the notes say what is left out and why.

    Raises:
        UserError: There is no Java, or it fails. Nothing is scored on other tokens than the official ones.
        ImportError: pycocoevalcap is not installed.
        ValueError: The lengths differ, there is no image, or an image has no reference.
    """
    groups = groups or [""] * len(candidates)
    if not len(candidates) == len(references) == len(groups):
        raise ValueError(f"{len(candidates)} captions for {len(references)} images in {len(groups)} groups")
    if not all(references) or not references:
        raise ValueError("there is no image, or one without a reference")
    parts = {"": list(range(len(candidates)))}
    for name in dict.fromkeys(filter(None, groups)):
        parts[name] = [k for k, group in enumerate(groups) if group == name]
    metrics, notes = _score_parts(_tokenized(candidates, references), parts)
    return Score(
        metrics=metrics.pop(""),
        groups={name: values | {"n": len(parts[name])} for name, values in metrics.items()},
        num_items=len(candidates),
        notes=tuple(notes),
    )


def _tokenized(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> _Captions:
    tokens = iter(
        caption_java.tokenize([*candidates, *(text for captions_of_image in references for text in captions_of_image)])
    )
    return _Captions(
        [next(tokens) for _ in candidates],
        [[next(tokens) for _ in captions_of_image] for captions_of_image in references],
    )


def _score_parts(
    captions: _Captions, parts: Mapping[str, Sequence[int]]
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Metrics of each part, and what there is to say about them."""
    meteor = caption_java.meteor(*captions, list(parts.values()))
    spice, note = _spice(captions)
    notes = [note] if note else []
    metrics = {}
    for (name, part), meteor_of_part in zip(parts.items(), meteor, strict=True):
        values = _counted(_Captions([captions.candidates[k] for k in part], [captions.references[k] for k in part]))
        values["METEOR"] = meteor_of_part
        if spice is not None:
            values["SPICE"] = math.fsum(spice[k] for k in part) / len(part)
        if len(part) < 2:
            notes.append(f"CIDEr of {name or 'the whole'} is 0 by its definition: it needs two images or more")
        metrics[name] = values
    return metrics, notes


def _spice(captions: _Captions) -> tuple[list[float] | None, str]:
    """SPICE of each caption, or why there is none."""
    missing = caption_java.missing_for_spice()
    if missing:
        return None, missing
    scores = caption_java.spice(*captions)
    undefined = sum(map(math.isnan, scores))
    if undefined:
        return None, f"SPICE is left out: {undefined} captions have none, so that their mean is not a number"
    return scores, ""


def _counted(captions: _Captions) -> dict[str, float]:
    """The metrics that need no Java beyond the tokens."""
    bleu, cider, rouge = (
        getattr(require(f"pycocoevalcap.{name.lower()}.{name.lower()}", extra="eval"), name)
        for name in ("Bleu", "Cider", "Rouge")
    )
    candidates_by_image = {k: [text] for k, text in enumerate(captions.candidates)}
    captions_by_image = dict(enumerate(captions.references))
    values = {"CIDEr": float(cider().compute_score(captions_by_image, candidates_by_image)[0])}
    for n, value in enumerate(bleu(4).compute_score(captions_by_image, candidates_by_image, verbose=0)[0], start=1):
        values[f"Bleu_{n}"] = float(value)
    return values | {"ROUGE_L": float(rouge().compute_score(captions_by_image, candidates_by_image)[0])}
