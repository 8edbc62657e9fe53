"""What a benchmark is: items out of its published files, a prompt, a scorer, and where its files are found.

A task knows no model. The engine (`generate`) asks a model about the items; the scorer sees texts only.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ..registry import Registry
from .problems import Problems

GENERATE, LIKELIHOOD = "generate", "likelihood"

TASKS: "Registry[type[Task]]" = Registry("task")
"""Name on the command line -> task."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question about one image."""

    question_id: str
    """As text: official files mix numbers and strings."""
    image: str
    """File name within the task's image folder; empty where the question has no image."""
    text: str
    """What the model is asked: the question with the task's prompt around it."""
    gold: Any = None
    """What this task's scorer compares with; None where the labels are not public."""
    group: str = ""
    """Part of the benchmark that is scored by itself (POPE's split, NoCaps' domain); empty when it has none."""
    aliases: tuple[str, ...] = ()
    """Other ids under which answers files name the question."""
    llava_id: str = ""
    """LLaVA's id, where it has one of its own: under this an answer is written. One of the aliases."""
    choices: tuple[str, ...] = ()
    """Answers whose likelihoods are compared, in the form `likelihood`."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a scorer found."""

    metrics: dict[str, float]
    """Name -> value over all items, the headline first; in the units that the convention reports."""
    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    """Part of the benchmark -> its own metrics, `n` among them."""
    num_items: int
    notes: tuple[str, ...] = ()
    """Sentences for who reads the score: what was left out of it, and what to do about that."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where one packaging of a benchmark keeps its files, relative to a root folder; patterns as `Path.glob` takes."""

    labels: tuple[str, ...]
    """Every pattern must match at least one file."""
    images: str
    """The image folder."""


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
    conventions: ClassVar[tuple[str, ...]] = ("official",)
    """How answers may be scored; the first is the default."""
    form: ClassVar[str] = GENERATE
    max_new_tokens: ClassVar[int] = 16

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
