"""What frozen features hold, by a linear probe: how many held-out questions a linear classifier on them gets right.

A classifier needs no language model, and reads what a projector could: where experts add nothing to the base's score
here, a tower with them has little to gain on that family.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tove_lvlm.data.images import read_image, to_pixels
from tove_lvlm.tower.modeling import ToVEVisionModel

from .intervals import wilson

BASE = "base"
_BATCH_SIZE = 32
_MAP_CHANNELS = 8
"""Up to so many channels a grid is a map, of which 5 x 5 positions are taken; of more its mean over all positions."""
_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class Question:
    """A picture and which of its choices is right."""

    image: str
    answer: str
    choices: Sequence[str] = ()
    """Of a held-out question."""


def learned(file: Path, text: str) -> list[Question]:
    """The conversations of one turn that ask just this.

    Args:
        file: LLaVA JSON.
        text: The question, without `<image>`.
    """
    rows = json.loads(file.read_text(encoding="utf-8"))
    turns = [(row["image"], *(turn["value"] for turn in row["conversations"])) for row in rows]
    return [Question(image=image, answer=answer) for image, said, answer in turns if said == f"<image>\n{text}"]


def asked(file: Path, family: str) -> list[Question]:
    """The held-out questions of a family.

    Args:
        file: JSON lines, as `tove eval questions_likelihood` takes them.
        family: Which.
    """
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    of_family = [row for row in rows if row["family"] == family]
    return [Question(image=row["image"], answer=row["answer"], choices=row["choices"]) for row in of_family]


@torch.no_grad()
def features(
    tower: ToVEVisionModel, folder: Path, names: Iterable[str], processor: Any, *, direct_resize: bool
) -> dict[str, dict[str, np.ndarray]]:
    """Image -> `base` or an expert -> (D,) float32, as `_MAP_CHANNELS` says.

    Args:
        tower: With the experts, and with a feature cache where there is one.
        folder: Of the images.
        names: Of the images.
        processor: The tower's.
        direct_resize: As `data.images.to_pixels`; a cache is read only where it is as when it was filled.
    """
    names, found = sorted(set(names)), {}
    for start in range(0, len(names), _BATCH_SIZE):
        chunk = names[start : start + _BATCH_SIZE]
        pictures = [read_image(folder / name) for name in chunk]
        pixels = [to_pixels(picture, processor, "square", direct_resize=direct_resize) for picture in pictures]
        frozen = tower.encode_frozen(torch.stack(pixels))
        parts = {BASE: frozen.t_clip_BND.mean(1)} | {name: _pooled(grid) for name, grid in frozen.grids.items()}
        for i, name in enumerate(chunk):
            found[name] = {part: values_BD[i].float().numpy() for part, values_BD in parts.items()}
    return found


def _pooled(grid_BCHW: torch.Tensor) -> torch.Tensor:
    side = 5 if grid_BCHW.shape[1] <= _MAP_CHANNELS else 1
    return nn.functional.adaptive_avg_pool2d(grid_BCHW, side).flatten(1)


def probe(
    train: Sequence[Question],
    heldout: Sequence[Question],
    found: Mapping[str, Mapping[str, np.ndarray]],
    parts: Sequence[str],
) -> dict[str, float | list[float] | int]:
    """Share of held-out questions whose answer a logistic regression puts before their other choices.

    Features are standardised; the strength of the penalty is the best of five folds of the training questions.

    Args:
        train: What is learned from.
        heldout: What is asked.
        found: From `features`, of both.
        parts: Those that are put one after another.

    Returns:
        `accuracy` with its 95 % `interval`, and `dims`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def of(questions: Sequence[Question]) -> np.ndarray:
        return np.stack([np.concatenate([found[question.image][part] for part in parts]) for question in questions])

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    grid = {"logisticregression__C": [1e-3, 1e-2, 1e-1, 1.0]}
    chosen = GridSearchCV(model, grid, cv=_FOLDS).fit(of(train), [question.answer for question in train])
    classes, scores = list(chosen.classes_), chosen.decision_function(of(heldout))
    right = 0
    for question, row in zip(heldout, scores, strict=True):
        score = dict(zip(classes, row, strict=True))
        right += max(question.choices, key=lambda choice: score.get(choice, -np.inf)) == question.answer
    accuracy = right / len(heldout)
    interval = [round(end, 4) for end in wilson(accuracy, len(heldout))]
    return {"accuracy": round(accuracy, 4), "interval": interval, "dims": of(heldout[:1]).shape[1]}
