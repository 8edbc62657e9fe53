"""GQA: exact match with one gold answer.

See docs/evaluation.md, "GQA".
"""

import string
from dataclasses import dataclass

CONVENTIONS = ("official", "lmms-eval")

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, kw_only=True)
class Gold:
    """The right answer and the question's kinds, empty where the file does not say."""

    answer: str
    structural: str = ""
    """verify, query, choose, logical or compare."""
    semantic: str = ""
    """obj, attr, cat, rel or global."""

    def groups(self) -> list[str]:
        """Parts of the benchmark: `binary` or `open` (structural type query), and one for each kind."""
        if not self.structural:
            return []
        kind = "open" if self.structural == "query" else "binary"
        return [kind, f"structural/{self.structural}"] + ([f"semantic/{self.semantic}"] if self.semantic else [])


def prediction(text: str) -> str:
    """What LLaVA hands to the official script: lower case, without full stops at the end. Nothing else is forgiven."""
    return text.rstrip(".").lower()


def is_right(text: str, answer: str, convention: str = "official") -> bool:
    """Whether an answer is right.

    Args:
        text: The model's words.
        answer: The gold answer.
        convention: `official` compares `prediction(text)`; `lmms-eval` ignores case and all ASCII punctuation.
    """
    if convention == "official":
        return prediction(text) == answer
    return text.lower().translate(_NO_PUNCTUATION) == answer.lower().translate(_NO_PUNCTUATION)
