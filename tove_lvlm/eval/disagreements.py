"""Questions of a benchmark side by side: what several runs of `tove eval` answered to each, and where they disagree."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import UserError
from ..storage import short_names
from .benchmark import Benchmark, read_benchmark, task_class
from .compare import incomparable
from .io import record
from .io.answers import match, read_answers
from .io.find import find
from .io.problems import Problems
from .io.store import ANSWERS
from .questions import RIGHT, expected_text, share_of


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What one run answered to one question."""

    text: str | None
    """None where there is no answer."""
    accuracy: float | None
    """0 to 1; None where questions are not right or wrong one by one, as captions are not."""

    @property
    def is_right(self) -> bool | None:
        """Whether it counts as right."""
        return None if self.accuracy is None else self.accuracy >= RIGHT


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question with the replies of all runs, in the runs' order."""

    question_id: str
    image: str
    text: str
    group: str
    gold: str
    """The right answer for people; empty where it is not public, or no single text is right."""
    replies: tuple[Reply, ...]

    @property
    def is_disputed(self) -> bool:
        """Whether one run is right and another wrong; where nothing is right or wrong, whether the texts differ."""
        verdicts = {reply.is_right for reply in self.replies}
        return len({reply.text for reply in self.replies}) > 1 if verdicts == {None} else len(verdicts) > 1


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """A benchmark's questions with the replies of several runs."""

    task: str
    runs: tuple[str, ...]
    """Names: those of their models, made distinct by their folders where they are alike."""
    images: Path
    questions: tuple[Question, ...]

    def groups(self) -> list[str]:
        """Parts of the benchmark (POPE's splits, question types), sorted."""
        return sorted({question.group for question in self.questions if question.group})


def read_side_by_side(folders: Sequence[Path], data: Path, images: Path | None = None) -> SideBySide:
    """Read what `tove eval` wrote for several models of one benchmark.

    Args:
        folders: Of the runs, at least two: `record.json` and `answers.jsonl`.
        data: As for `tove eval --data`: label files and images are looked for below it.
        images: Image folder, where it is not found below `data`.

    Raises:
        UserError: Fewer than two runs, no run in a folder, runs that are not comparable, or label files that are not
            those that were scored.
    """
    if len(folders) < 2:
        raise UserError(f"{len(folders)} run given; disagreements are between two or more folders of `tove eval`")
    records = [record.load(folder) for folder in folders]
    for folder, other in zip(folders[1:], records[1:], strict=True):
        if reasons := incomparable(records[0], other):
            raise UserError(f"`{folder}` cannot be compared with `{folders[0]}`: {'; '.join(reasons)}")
    task = task_class(records[0]["task"])
    place = find(task, data, images=images is None)
    benchmark = read_benchmark(
        records[0]["task"], list(place.labels), records[0]["convention"], _prompt(records[0]), records[0]["limit"]
    )
    _check_labels(benchmark, records[0], data)
    replies = [_replies(benchmark, folder / ANSWERS) for folder in folders]
    questions = [
        Question(
            question_id=item.question_id,
            image=item.image,
            text=item.text,
            group=item.group,
            gold=expected_text(item) or "",
            replies=tuple(of_run[item.question_id] for of_run in replies),
        )
        for item in benchmark.items
    ]
    return SideBySide(
        task=task.name, runs=_names(folders, records), images=images or place.images, questions=tuple(questions)
    )


def _replies(benchmark: Benchmark, file: Path) -> dict[str, Reply]:
    texts = match(benchmark.items, read_answers(file, Problems()), Problems())
    found = {}
    for item in benchmark.items:
        text = texts.get(item.question_id)
        accuracy = None if expected_text(item) is None else share_of(benchmark, item, text)
        found[item.question_id] = Reply(text=text, accuracy=accuracy)
    return found


def _prompt(saved: dict[str, Any]) -> str | None:
    return saved["prompt"]["template"] if saved.get("prompt") else None


def _check_labels(benchmark: Benchmark, saved: dict[str, Any], data: Path) -> None:
    here = sorted(record.sha256(path) for path in benchmark.labels)
    if here != sorted(saved["labels"].values()):
        names = ", ".join(saved["labels"])
        raise UserError(
            f"the label files of {benchmark.task.name} below `{data}` are not those that were scored ({names})"
        )


def _names(folders: Sequence[Path], records: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    of_models = [(saved.get("model") or {}).get("id") for saved in records]
    names = [str(name or folder.name) for name, folder in zip(of_models, folders, strict=True)]
    return tuple(names if len({*names}) == len(names) else short_names(folders))
