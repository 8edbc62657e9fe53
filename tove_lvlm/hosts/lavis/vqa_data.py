"""A LAVIS dataset for questions in LLaVA's JSON: `datasets: {llava_vqa: ...}`.

datasets:
  llava_vqa:
    vis_processor: {train: {name: tove_image_train}, eval: {name: tove_image_eval}}
    build_info:
      annotations: {train: {storage: data/train/finetune.json}, val: {storage: data/heldout/questions.jsonl}}
      images:      {train: data/train/images, val: data/heldout/images}
      answer_list: data/answer_list.json      # what `run.inference_method: rank` chooses from

An annotation file is LLaVA's JSON list, in which each pair of turns is a question, or JSON lines with `image`, `text`
and `answer`. LAVIS's VQA task counts right answers by VQAv2's script on files of VQAv2's form; these are written for
the run, each answer as ten annotators', so that a given answer is right when it is the same after that script's
normalisation. Paths are relative to the working directory, not to LAVIS's cache.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from ...config import UserError
from ...data.errors import DataError
from ...data.turns import rounds
from ...inference.ranking import RankingConfig
from .data import make_builder, read_rows

DEFAULTS = Path(__file__).with_name("llava_vqa.yaml")
_NUM_ANNOTATORS = 10


def read_questions(path: str | Path) -> list[dict[str, Any]]:
    """Questions with their answers.

    Args:
        path: LLaVA's JSON list or JSON lines.

    Returns:
        `image`, `question` and `answer` of each question, in the file's order.

    Raises:
        UserError: The file is absent or unreadable, or a record has no image, question or answer.
    """
    found = []
    for index, row in enumerate(read_rows(path)):
        try:
            pairs = rounds(row["conversations"]) if "conversations" in row else [(row.get("text"), row.get("answer"))]
        except DataError as error:
            raise error.at(file=path, sample_id=str(index)) from error
        for question, answer in pairs:
            if not row.get("image") or not question or not answer:
                raise UserError(f"{path}: record {index} has no `image` with `text` and `answer`, or `conversations`")
            found.append({"image": row["image"], "question": question, "answer": answer})
    return found


def write_vqav2(folder: Path, rows: list[dict[str, Any]]) -> tuple[str, str]:
    """Question and annotation file in VQAv2's form.

    Args:
        folder: Where.
        rows: With `question_id`, `image`, `question` and `answer`.

    Returns:
        Their paths.
    """
    about = {"info": {}, "task_type": "Open-Ended", "data_type": "llava_vqa", "data_subtype": "", "license": {}}
    names = {image: number for number, image in enumerate(dict.fromkeys(row["image"] for row in rows))}
    questions, annotations = [], []
    for row in rows:
        ids = {"question_id": row["question_id"], "image_id": names[row["image"]]}
        questions.append({**ids, "question": row["question"]})
        given = [{"answer": row["answer"], "answer_id": number + 1} for number in range(_NUM_ANNOTATORS)]
        kinds = {"question_type": row["question"].split()[0].lower(), "answer_type": _answer_type(row["answer"])}
        annotations.append({**ids, **kinds, "answers": given})
    files = (folder / "questions.json", folder / "annotations.json")
    for file, content in zip(files, ({"questions": questions}, {"annotations": annotations}), strict=True):
        file.write_text(json.dumps({**about, **content}), encoding="utf-8")
    return str(files[0]), str(files[1])


def register() -> None:
    """File the builder in LAVIS's registry. Idempotent."""
    from lavis.common.registry import registry

    if registry.get_builder_class("llava_vqa") is not None:
        return
    from lavis.datasets.datasets.coco_vqa_datasets import COCOVQADataset, COCOVQAEvalDataset

    class LlavaQuestions(COCOVQADataset):
        """Questions with their answers, for training."""

        def __init__(self, vis_processor, text_processor, vis_root, ann_paths):
            super().__init__(vis_processor, text_processor, vis_root, [])
            self.annotation = [{**row, "answer": [row["answer"]]} for row in _number(ann_paths)]
            self._add_instance_ids()

    class LlavaQuestionsEval(COCOVQAEvalDataset):
        """Questions alone, and the files by which LAVIS counts the right answers."""

        def __init__(self, vis_processor, text_processor, vis_root, ann_paths):
            self.vis_processor, self.text_processor, self.vis_root = vis_processor, text_processor, vis_root
            self.annotation, self.answer_list = _number(ann_paths), None
            self._folder = tempfile.TemporaryDirectory()  # goes with the data set
            files = write_vqav2(Path(self._folder.name), self.annotation)
            self.coco_fmt_qust_file, self.coco_fmt_anno_file = files
            self._add_instance_ids()

    class LlavaVQABuilder(make_builder("llava_vqa", LlavaQuestions, LlavaQuestionsEval, DEFAULTS)):  # type: ignore[misc]
        """With the list of answers, which LAVIS's task takes from whichever split has it."""

        def build(self):
            file = self.config.build_info.get("answer_list")
            answers = None if file is None else list(RankingConfig.from_file(file).candidates)
            datasets = super().build()
            for dataset in datasets.values():
                dataset.answer_list = answers
            return datasets

    registry.register_builder("llava_vqa")(LlavaVQABuilder)


def _number(ann_paths: list[str]) -> list[dict[str, Any]]:
    rows = [row for path in ann_paths for row in read_questions(path)]
    return [{**row, "question_id": number} for number, row in enumerate(rows)]


def _answer_type(answer: str) -> str:
    """As VQAv2 groups its questions."""
    if answer.lower() in ("yes", "no"):
        return "yes/no"
    return "number" if answer.isdigit() else "other"
