"""A benchmark that has been read from its label files: what is asked, and how answers will be scored."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import UserError
from ..registry import nearest
from . import tasks  # noqa: F401  fills TASKS
from .io.find import data_locations, nearest_location
from .io.items import Item
from .io.problems import Problems
from .metrics.score import Score
from .tasks.base import TASKS, Task


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark that has been read: what is asked and how answers will be scored."""

    task: Task
    convention: str
    labels: tuple[Path, ...]
    all_items: list[Item]
    items: list[Item]
    """Those that are asked: all, or the first `limit`."""
    limit: int | None
    problems: Problems

    @property
    def is_labelled(self) -> bool:
        """Whether there is something to score with; a test split has no public labels."""
        return any(item.gold is not None for item in self.items)

    def score(self, texts: Mapping[str, str]) -> Score:
        """Score answers by question id.

        Raises:
            UserError: There are no labels, or a program that the scorer needs is missing.
        """
        return self.task.score(self.items, texts, self.convention, self.problems)


def task_class(name: str) -> type[Task]:
    """A benchmark by its name on the command line.

    Raises:
        UserError: There is none; names the nearest.
    """
    if name not in TASKS:
        raise UserError(f"unknown task `{name}`; {nearest(name, TASKS.names())}")
    return TASKS.get(name)


def survey(root: str | Path) -> Iterator[dict[str, object]]:
    """Every benchmark by name: what is found below a root, what is missing, where to get it. For `tove eval --list`.

    Yields:
        `task`, `about`, `form`, `conventions`, `prompt`, `labels` and `images` (found; None where not), `missing`,
        `source`.
    """
    for name in TASKS.names():
        task = TASKS.get(name)
        best = nearest_location(data_locations(task, root))
        yield {
            "task": name,
            "about": task.about,
            "form": task.form,
            "conventions": list(task.conventions),
            "prompt": task.prompt,
            "labels": [str(path) for path in best.labels],
            "images": str(best.images) if best.images.is_dir() else None,
            "missing": best.missing_files(),
            "source": task.source,
        }


def read_benchmark(
    name: str,
    labels: Sequence[Path],
    convention: str | None = None,
    prompt: str | None = None,
    limit: int | None = None,
) -> Benchmark:
    """Read a benchmark's label files.

    Args:
        name: The task.
        labels: Its files.
        convention: How to score; none takes the task's first.
        prompt: In place of the task's own.
        limit: Only the first so many questions.

    Raises:
        UserError: Unknown task or convention, files that are not the task's, or a prompt that it cannot take.
    """
    task = task_class(name)()
    convention = convention or task.conventions[0]
    if convention not in task.conventions:
        raise UserError(f"task `{name}` has no convention `{convention}`; {nearest(convention, task.conventions)}")
    problems = Problems()
    items = task.read(labels, problems)
    if prompt is not None and prompt != task.prompt:
        items = _with_prompt(task, prompt, labels, items)
    return Benchmark(
        task=task,
        convention=convention,
        labels=tuple(labels),
        all_items=items,
        items=items[:limit],
        limit=limit,
        problems=problems,
    )


def _with_prompt(task: Task, prompt: str, labels: Sequence[Path], usual: Sequence[Item]) -> list[Item]:
    """The items with another prompt, which `task` has from now on."""
    task.prompt = prompt  # type: ignore[misc]  # of this one object, over its class's
    try:
        items = task.read(labels, Problems())
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:  # all that `str.format` raises
        if isinstance(error, UserError):
            raise
        raise UserError(f"--prompt `{prompt}` does not fit {task.name}: it may have {{question}} in it") from error
    if any(item.text == original.text for item, original in zip(items, usual, strict=True)):
        raise UserError(
            f"--prompt has no effect: {', '.join(path.name for path in labels)} bring their own prompts, which are "
            "asked as they stand; give the official label files instead"
        )
    return items
