"""POPE. Labels: `coco_pope_{random,popular,adversarial}.json` of either release.

The label files number their questions from 1, each for itself; LLaVA's pooled question file numbers them in the same
order from 1 (adversarial), 10000001 (random) and 20000001 (popular). An item is called `random/17`, and answers files
may call it that or as LLaVA does, which ours do; where only one split is read, the label file's own number will do.

See docs/evaluation.md, "POPE".
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...config import UserError
from ..io.answers import texts_of
from ..io.find import Layout
from ..io.items import Item, checked
from ..io.labels import note_undecided
from ..io.problems import Problems
from ..io.rows import Row, read_rows
from ..metrics import pope
from ..metrics.score import Score
from .base import SHORT_ANSWER, TASKS, Task

_LLAVA_FIRST = {"adversarial": 0, "random": 10_000_000, "popular": 20_000_000}
_LABELS = {"yes": True, "no": False}


@TASKS.register("pope")
class Pope(Task):
    """Is there an object of this kind in the image?"""

    name = "pope"
    about = "object hallucination: yes or no, three splits; F1"
    source = "github.com/AoiDragon/POPE, output/coco (LLaVA: commit e3e3926); images: COCO val2014"
    layouts = (
        Layout(labels=("playground/data/eval/pope/coco/coco_pope_*.json",), images="playground/data/eval/pope/val2014"),
        Layout(labels=("output/coco/coco_pope_*.json",), images="val2014"),
    )
    prompt = SHORT_ANSWER
    conventions = pope.CONVENTIONS

    def read(self, labels: Sequence[Path], problems: Problems) -> list[Item]:
        """Label files, one for each split, or LLaVA's `llava_pope_test.jsonl`, which has no labels."""
        items = []
        for path in map(Path, labels):
            for row in read_rows(path, problems):
                if not row.has(("question_id", "image", "text"), problems):
                    continue
                if "category" in row.fields:
                    items.append(_llava_item(row))
                elif row.has(("label",), problems):
                    items.extend(self._item(row, _split(path), len(labels) == 1, problems))
        return checked(items, labels, problems, "rows of `question_id, image, text, label`")

    def _item(self, row: Row, split: str, alone: bool, problems: Problems) -> list[Item]:
        label = _LABELS.get(row.text("label").strip().lower())
        if label is None:
            problems.add("label neither yes nor no", row.where)
            return []
        number = row.text("question_id")
        llava_id = _shifted(number, _LLAVA_FIRST[split])
        return [
            Item(
                question_id=f"{split}/{number}",
                image=row.text("image"),
                text=self.prompt.format(question=row.text("text")),
                gold=label,
                group=split,
                aliases=(llava_id, number) if alone else (llava_id,),
                llava_id=llava_id,
            )
        ]

    def score(self, items: Sequence[Item], answers: Mapping[str, str], convention: str, problems: Problems) -> Score:
        """As `pope.score`; groups are the splits. A missing answer says neither yes nor no, an empty one is read."""
        texts = texts_of(items, answers, problems)
        predictions = [None if text is None else pope.read_answer(text, convention) for text in texts]
        note_undecided(items, texts, predictions, problems)
        predicted: dict[str, list[bool | None]] = {item.group: [] for item in items}
        gold: dict[str, list[bool]] = {item.group: [] for item in items}
        for item, answer in zip(items, predictions, strict=True):
            predicted[item.group].append(answer)
            gold[item.group].append(item.gold)
        metrics, groups = pope.score(predicted, gold, convention)
        return Score(metrics=metrics, groups=groups, num_items=len(items))


def _llava_item(row: Row) -> Item:
    split, number = row.text("category"), row.text("question_id")
    return Item(
        question_id=f"{split}/{_shifted(number, -_LLAVA_FIRST.get(split, 0))}",
        image=row.text("image"),
        text=row.text("text"),
        group=split,
        aliases=(number,),
        llava_id=number,
    )


def _shifted(number: str, by: int) -> str:
    return str(int(number) + by) if number.isdecimal() else number


def _split(path: Path) -> str:
    for split in pope.SPLITS:
        if split in path.name:
            return split
    raise UserError(f"file `{path}`: its name must say which split of POPE it is ({', '.join(pope.SPLITS)})")
