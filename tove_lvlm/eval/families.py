"""Accuracy by question family: short answers, exact match. What the demo and the miniature study report."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import UserError
from .metrics.score import normalize


@dataclass(frozen=True, kw_only=True)
class FamilyQuestion:
    """One held-out question: what is asked about which image, the right answer and its family."""

    question_id: str
    image: str
    text: str
    answer: str
    family: str


def read_questions(path: str | Path) -> list[FamilyQuestion]:
    """Read a JSON-lines file of questions.

    Raises:
        UserError: The file is absent or empty, or a line lacks a field; the message names file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"questions file `{path}` does not exist")
    questions = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            fields = {name: str(row[name]) for name in FamilyQuestion.__dataclass_fields__}
        except (json.JSONDecodeError, TypeError) as error:
            raise UserError(f"{path}:{number}: not a JSON object") from error
        except KeyError as error:
            raise UserError(f"{path}:{number}: the field {error} is missing") from error
        questions.append(FamilyQuestion(**fields))
    if not questions:
        raise UserError(f"{path}: no questions in it")
    return questions


def score(questions: Sequence[FamilyQuestion], answers: Sequence[str]) -> dict:
    """Exact-match accuracy of each family and overall.

    Args:
        questions: What was asked.
        answers: One answer for each question, in the same order.

    Returns:
        `{"families": {name: {"accuracy", "n"}}, "overall": {"accuracy", "n"}}`, accuracies in [0, 1]; overall is the
        mean over questions.

    Raises:
        ValueError: The lengths differ or nothing was asked.
    """
    if len(questions) != len(answers):
        raise ValueError(f"{len(questions)} questions but {len(answers)} answers")
    if not questions:
        raise ValueError("no questions to score")
    correct = defaultdict(list)
    for question, answer in zip(questions, answers, strict=True):
        correct[question.family].append(normalize(answer) == normalize(question.answer))
    families = {name: {"accuracy": sum(hits) / len(hits), "n": len(hits)} for name, hits in correct.items()}
    total = sum(sum(hits) for hits in correct.values())
    return {"families": families, "overall": {"accuracy": total / len(questions), "n": len(questions)}}


def chance(questions: Sequence[FamilyQuestion]) -> dict:
    """What the question's text alone is worth, in the form of `score`.

    The better of two guesses for each family: always its most frequent answer, or one of the answers that the question
    names ("Which is nearer, red or blue?").
    """
    by_family = defaultdict(list)
    for question in questions:
        by_family[question.family].append(question)
    families = {}
    for family, of_family in by_family.items():
        answers = Counter(normalize(question.answer) for question in of_family)
        majority = max(answers.values()) / len(of_family)
        named = [len(answers.keys() & set(re.findall(r"\w+", question.text.lower()))) for question in of_family]
        guess = sum(1 / num if num > 1 else 0.0 for num in named) / len(of_family)
        families[family] = {"accuracy": max(majority, guess), "n": len(of_family)}
    correct = sum(part["accuracy"] * part["n"] for part in families.values())
    return {"families": families, "overall": {"accuracy": correct / len(questions), "n": len(questions)}}
