"""Visual Spatial Reasoning for lmms-eval, which has no such task: what `tasks/vsr/*.yaml` name.

Files are found as `tove eval` finds them, below the folder of the environment variable TOVE_EVAL_DATA or the current
one. Questions, readings and scores are those of `tove_lvlm.eval`; any model of lmms-eval can be asked.

See docs/evaluation.md, "VSR".
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ...config import UserError
from ...data.images import read_image, resolve_image
from ...eval.io.find import Layout
from ...eval.metrics import binary
from ...eval.tasks import vsr
from ...eval.tasks.vsr import Vsr, VsrLikelihood

DATA = "TOVE_EVAL_DATA"

MetricInput = dict[str, Any]
"""`score` 0 or 1, `prediction` True, False or None, `gold`."""


def __getattr__(name: str) -> Any:
    """`dataset_kwargs`, which the YAMLs name, looks for the files when a task is loaded and not before (PEP 562)."""
    if name != "dataset_kwargs":
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    root, layout = _find_files()
    return {"data_files": {"test": str(root / layout.labels[0])}}


def picture(doc: Mapping[str, Any]) -> list[Image.Image]:
    """The document's image.

    Raises:
        DataError: It is missing or broken.
    """
    root, layout = _find_files()
    return [read_image(resolve_image(root / layout.images, doc["image"], allow_symlinks=True))]


def question(doc: Mapping[str, Any], settings: Mapping[str, str] | None = None) -> str:
    """The yes-or-no form; `settings` may hold another `prompt` with `{question}`."""
    return _ask(Vsr.prompt, doc, settings)


def question_likelihood(doc: Mapping[str, Any], settings: Mapping[str, str] | None = None) -> str:
    """The form whose answers "True" and "False" are compared."""
    return _ask(VsrLikelihood.prompt, doc, settings)


def target(doc: Mapping[str, Any]) -> str:
    """The right answer of the yes-or-no form."""
    return "yes" if doc["label"] else "no"


def target_likelihood(doc: Mapping[str, Any]) -> int:
    """Index of the right one of "True", "False"."""
    return 0 if doc["label"] else 1


def read_words(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, MetricInput]:
    """Metrics' ingredients from an answer in words; one that says neither yes nor no is wrong."""
    return _ingredients(doc, binary.yes_or_no(results[0]))


def read_losses(doc: Mapping[str, Any], results: Sequence[tuple[float, bool] | str]) -> dict[str, MetricInput]:
    """Metrics' ingredients from the losses of "True" and "False": in lmms-eval the smaller one is the answer.

    Args:
        doc: A row of VSR.
        results: (loss, greedy) of each. lmms-eval 0.7.3 hands them on as text, which its own multiple choice does not
            survive.
    """
    loss_true, loss_false = map(loss_of, results)
    return _ingredients(doc, loss_true < loss_false)


def loss_of(result: tuple[float, bool] | str) -> float:
    """The loss in what a model's `loglikelihood` gave, or in its text."""
    return float(result.strip("()").split(",")[0]) if isinstance(result, str) else float(result[0])


def accuracy(items: Sequence[MetricInput]) -> float:
    """Share of right answers."""
    return _metric(items, "accuracy")


def f1(items: Sequence[MetricInput]) -> float:
    """Of the true statements, as are the next two."""
    return _metric(items, "f1")


def precision(items: Sequence[MetricInput]) -> float:
    """As `f1`."""
    return _metric(items, "precision")


def recall(items: Sequence[MetricInput]) -> float:
    """As `f1`."""
    return _metric(items, "recall")


def _ask(prompt: str, doc: Mapping[str, Any], settings: Mapping[str, str] | None) -> str:
    return ((settings or {}).get("prompt") or prompt).format(question=doc["caption"])


def _ingredients(doc: Mapping[str, Any], prediction: bool | None) -> dict[str, MetricInput]:
    gold = bool(doc["label"])
    item = {"score": float(prediction == gold), "prediction": prediction, "gold": gold}
    category = vsr.CATEGORY.get(doc["relation"])
    names = ["accuracy", "f1", "precision", "recall", *([category.lower()] if category else [])]
    return {f"vsr_{name}": item for name in names}


def _metric(items: Sequence[MetricInput], name: str) -> float:
    return binary.count([item["prediction"] for item in items], [item["gold"] for item in items]).metrics()[name]


def _find_files() -> tuple[Path, Layout]:
    root = Path(os.environ.get(DATA) or ".").resolve()
    for layout in Vsr.layouts:
        if (root / layout.labels[0]).is_file():
            return root, layout
    expected = " or ".join(f"`{layout.labels[0]}`" for layout in Vsr.layouts)
    raise UserError(
        f"VSR's files are not below `{root}` (environment variable {DATA}, else the current folder): expected "
        f"{expected}, with the pictures beside. Source: {Vsr.source}"
    )
