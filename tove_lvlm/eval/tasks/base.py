"""What a benchmark is: items out of its published files, a prompt, a scorer, and where its files are found.

A task knows no model. The engine (`generate`) asks a model about the items; the scorer sees texts only.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ...registry import Registry
from ..io.find import Layout
from ..io.items import Item
from ..io.problems import Problems
from ..metrics.score import Score

GENERATE, LIKELIHOOD = "generate", "likelihood"

SHORT_ANSWER = "{question}\nAnswer the question using a single word or phrase."
"""LLaVA's prompt for short answers."""

TASKS: "Registry[type[Task]]" = Registry("task")
"""Name on the command line -> task."""


class Task(ABC):
    """A benchmark. Subclasses are stateless and registered by name."""

    name: ClassVar[str]
    about: ClassVar[str]
    """One line for `tove eval --list`."""
    source: ClassVar[str]
    """Where to get the files, for people."""
    layouts: ClassVar[tuple[Layout, ...]]
    """LLaVA's first (root: the folder that holds `playground`), then as the official site packs it."""
    prompt: ClassVar[str]
    """Template with `{question}` where there is one; its hash is in the score record."""
    bare_prompt: ClassVar[str] = "{question}"
    """The same for a model that goes on from the question itself, as the base model does."""
    conventions: ClassVar[tuple[str, ...]] = ("official",)
    """How answers may be scored; the first is the default."""
    form: ClassVar[str] = GENERATE
    max_new_tokens: ClassVar[int] = 16
    bare_decoding: ClassVar[Mapping[str, int]] = {}
    """What of `DecodingConfig` is conventional for such a model, where it is not greedy."""

    @abstractmethod
    def read(self, labels: Sequence[Path], problems: Problems) -> list[Item]:
        """Items of official label files, in the files' order.

        Args:
            labels: The files.
            problems: Rows that cannot be used are noted here and left out.

        Raises:
            UserError: A file is absent or is not of this benchmark; names file and line.
        """

    @abstractmethod
    def score(self, items: Sequence[Item], answers: Mapping[str, str], convention: str, problems: Problems) -> Score:
        """Score answers.

        Args:
            items: With gold labels.
            answers: Question id -> the model's text. What is missing or empty is noted and counts as wrong, unless the
                convention says otherwise.
            convention: One of `conventions`.
            problems: What was found on the way.
        """

    def check_scorer(self) -> None:  # noqa: B027  most scorers need nothing
        """Look for what `score` needs beside this package, before a model is asked for hours.

        Raises:
            UserError: A program is missing.
            ImportError: A package is missing; names its extra.
        """

    def upload(self, items: Sequence[Item], answers: Mapping[str, str]) -> Any | None:
        """JSON value of the file that the test server takes; None where there is no such server."""
        return None
