"""Visual Spatial Reasoning, asked in two forms. Labels: the official JSON lines.

The files have no ids: an item is called by file and line, `test/17`; where one file is read, `17` will do in answers.
The table of relations is `analysis_scripts/rel_meta_category_dict.txt` of cambridgeltl/visual-spatial-reasoning
(Apache-2.0).

See docs/evaluation.md, "VSR".
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ...data.turns import FALSE, STATEMENT, TRUE
from ..io.answers import texts_of
from ..io.find import Layout
from ..io.items import Item, checked
from ..io.labels import note_undecided
from ..io.problems import Problems
from ..io.rows import Row, read_rows
from ..metrics import binary
from ..metrics.score import Score, by_group
from .base import LIKELIHOOD, TASKS, Task

_RELATIONS = {
    "Adjacency": "adjacent to, alongside, at the side of, at the right side of, at the left side of, attached to, "
    "at the back of, ahead of, against, at the edge of",
    "Directional": "off, past, toward, down, deep down, up, away from, along, around, from, into, to, across, "
    "across from, through, down from",
    "Orientation": "facing, facing away from, parallel to, perpendicular to",
    "Projective": "on top of, beneath, beside, behind, left of, right of, under, in front of, below, above, over, "
    "in the middle of",
    "Proximity": "by, close to, near, far from, far away from",
    "Topological": "connected to, detached from, has as a part, part of, contains, within, at, on, in, with, "
    "surrounding, among, consists of, out of, between, inside, outside, touching",
    # "among" again, as in the source: the later line counts in the official script.
    "Unallocated": "beyond, next to, opposite to, after, among, enclosed by",
}

CATEGORY = {relation: category for category, names in _RELATIONS.items() for relation in names.split(", ")}
"""Relation -> one of the seven categories."""

CHOICES = ("True", "False")
"""What is ranked by likelihood; the first says that the statement is true."""


@TASKS.register("vsr")
class Vsr(Task):
    """The model says yes or no. The prompt is our choice."""

    name = "vsr"
    about = "spatial statements, answered yes or no; accuracy by relation category"
    source = "github.com/cambridgeltl/visual-spatial-reasoning, zero-shot test split; images: COCO"
    layouts = (
        Layout(labels=("playground/data/eval/vsr/zeroshot/test.jsonl",), images="playground/data/eval/vsr/images"),
        Layout(labels=("data/splits/zeroshot/test.jsonl",), images="data/images"),
    )
    prompt = 'Is this statement true of the image? "{question}"\nAnswer the question using yes or no.'
    bare_prompt = STATEMENT.format(statement="{question}")
    choices: tuple[str, ...] = ()

    def read(self, labels: Sequence[Path], problems: Problems) -> list[Item]:
        """Rows of `image, caption, label, relation`."""
        items = []
        for path in map(Path, labels):
            for row in read_rows(path, problems):
                if row.has(("image", "caption", "label", "relation"), problems):
                    items.extend(self._item(row, path.stem, len(labels) == 1, problems))
        return checked(items, labels, problems, "rows of `image, caption, label, relation`")

    def _item(self, row: Row, stem: str, alone: bool, problems: Problems) -> list[Item]:
        if row.fields["label"] not in (0, 1):
            problems.add("label neither 0 nor 1", row.where)
            return []
        category = CATEGORY.get(row.text("relation"), "")
        if not category:
            problems.add("relation of no category", row.where)
        return [
            Item(
                question_id=f"{stem}/{row.number}",
                image=row.text("image"),
                text=self.prompt.format(question=row.text("caption")),
                gold=bool(row.fields["label"]),
                group=category,
                aliases=(str(row.number),) if alone else (),
                choices=tuple(map(str.lower, self.choices)) if self.prompt == self.bare_prompt else self.choices,
            )
        ]

    def says_true(self, text: str) -> bool | None:
        """What an answer says of the statement, by yes and no or as the one word true or false; None where neither."""
        said = binary.yes_or_no(text)
        return {TRUE: True, FALSE: False}.get(text.strip().rstrip(".").lower()) if said is None else said

    def score(self, items: Sequence[Item], answers: Mapping[str, str], convention: str, problems: Problems) -> Score:
        """Fractions: accuracy, overall and by relation category, and F1, precision and recall of the true statements.

        An answer that says neither is noted and wrong.
        """
        texts = texts_of(items, answers, problems)
        predictions = [None if text is None else self.says_true(text) for text in texts]
        note_undecided(items, texts, predictions, problems)
        metrics = binary.count(predictions, [item.gold for item in items]).metrics()
        labelled = _labelled(items, predictions)
        return Score(
            metrics={"accuracy": metrics["accuracy"]} | metrics,
            groups=by_group(labelled),
            num_items=len(items),
        )


@TASKS.register("vsr_likelihood")
class VsrLikelihood(Vsr):
    """The likelihoods of "True" and "False" are compared, with InstructBLIP's prompt."""

    name = "vsr_likelihood"
    about = "spatial statements, likelihood of True against False; accuracy by relation category"
    prompt = 'Based on the image, is this statement true or false? "{question}" Answer:'
    form = LIKELIHOOD
    choices = CHOICES

    def says_true(self, text: str) -> bool | None:
        """Which of the choices it is."""
        true, false = CHOICES
        return {true.lower(): True, false.lower(): False}.get(text.strip().lower())


def _labelled(items: Sequence[Item], predictions: Sequence[bool | None]) -> Iterable[tuple[str, float]]:
    for item, answer in zip(items, predictions, strict=True):
        if item.group:
            yield item.group, float(answer == item.gold)
