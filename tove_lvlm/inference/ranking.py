"""Open questions answered out of a list of candidate answers, as BLIP and Prismer evaluate VQA.

First the `top_k` candidates whose first token is likeliest, then of these the likeliest as a whole (the sum over its
tokens and the end, nothing divided by the length). With `top_k` at the number of candidates all are weighed as a whole.

Shapes: Q questions, C candidates, K of them, V vocabulary.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch

from ..config import UserError

RANKED_BY = "log-likelihood, summed over the answer's tokens and </s>"
"""For records."""


class RankedAnswer(NamedTuple):
    """The likeliest candidate."""

    text: str
    log_likelihood: float


@dataclass(frozen=True, kw_only=True)
class RankingConfig:
    """What is ranked, and how many of it as a whole."""

    candidates: tuple[str, ...] = field(repr=False)
    """Different from each other, none empty."""
    top_k: int = 128
    """BLIP's and Prismer's."""

    def __post_init__(self):
        if self.top_k < 1:
            raise UserError(f"`top_k` is {self.top_k}; expected 1 or more")
        if not self.candidates:
            raise UserError("the list of candidate answers is empty")
        place_of: dict[str, int] = {}
        for place, answer in enumerate(self.candidates, start=1):
            if not isinstance(answer, str) or not answer.strip():
                raise UserError(f"candidate answer {place} is {answer!r}; expected a text, so take it out of the list")
            first = place_of.setdefault(answer.strip(), place)
            if first != place:
                raise UserError(f"candidate answer {place}, {answer!r}, is number {first} too; name it once")

    @classmethod
    def from_file(cls, path: str | Path, top_k: int = 128) -> Self:
        """Candidates of a file: a JSON list (as BLIP's `answer_list.json`), or a text a line.

        Args:
            path: The file.
            top_k: See the attribute.

        Raises:
            UserError: The file cannot be read, or its list has a duplicate or something empty in it.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
            found = json.loads(text) if path.suffix == ".json" else text.rstrip("\n").split("\n")
        except (OSError, ValueError) as error:
            raise UserError(f"candidate answers `{path}` cannot be read: {error}") from error
        if not isinstance(found, list):
            raise UserError(f"`{path}` must hold a list of candidate answers, holds {type(found).__name__}")
        try:
            return cls(candidates=tuple(found), top_k=top_k)
        except UserError as error:
            raise UserError(f"`{path}`: {error}") from error

    def about(self) -> dict[str, Any]:
        """For a record."""
        digest = hashlib.sha256("\n".join(self.candidates).encode()).hexdigest()
        return {
            "ranked_by": RANKED_BY,
            "num_candidates": len(self.candidates),
            "candidates_sha256": digest,
            "top_k": min(self.top_k, len(self.candidates)),
        }

    def shortlists(self, first_tokens: Sequence[int], logits_QV: torch.Tensor) -> list[list[str]]:
        """For each question the candidates that are weighed as a whole.

        Args:
            first_tokens: C token ids, of each candidate the first.
            logits_QV: What the model says first.
        """
        logits_QC = logits_QV.float()[:, torch.tensor(list(first_tokens), device=logits_QV.device)]
        chosen_QK = logits_QC.topk(min(self.top_k, len(self.candidates)), dim=1).indices
        return [[self.candidates[index] for index in row] for row in chosen_QK.tolist()]
