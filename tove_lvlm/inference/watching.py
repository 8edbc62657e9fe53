"""An answer while it is generated: told token by token, and ended early where nobody waits for it any more."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

OnText = Callable[[str, int], bool]
"""Told of the answer so far and of its number of tokens after each of them; what it returns is whether to go on."""
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer gives for the first bytes of a letter whose last ones are in the next token."""


class TokenWatch(StoppingCriteria):
    """Asked by `generate` of transformers after each token whether to end. For one row.

    Args:
        tokenizer: The model's.
        ends: Tokens that end an answer.
        on_text: Whom to tell.
        prompt_length: Tokens that come before the answer.
    """

    def __init__(self, tokenizer: Any, ends: Sequence[int], on_text: OnText, prompt_length: int):
        self._tokenizer, self._ends, self._on_text, self._start = tokenizer, ends, on_text, prompt_length

    def arguments(self) -> dict[str, Any]:
        """For `generate`."""
        return {"stopping_criteria": StoppingCriteriaList([self])}

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """(B,) whether to end."""
        ids = [token for token in input_ids[0, self._start :].tolist() if token not in self._ends]
        text = self._tokenizer.decode(ids, skip_special_tokens=True).strip()
        goes_on = self._on_text(text.rstrip(_UNFINISHED), len(ids))
        return torch.full((len(input_ids),), not goes_on, device=input_ids.device)
