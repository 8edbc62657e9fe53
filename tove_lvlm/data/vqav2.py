"""VQAv2's own files as LLaVA's samples: one for each image, with all that is asked about it.

    v2_OpenEnded_mscoco_train2014_questions.json   {data_subtype, questions: [{question_id, image_id, question}]}
    v2_mscoco_train2014_annotations.json           {annotations: [{question_id, multiple_choice_answer}]}

The answer to learn is `multiple_choice_answer`, the one that most annotators gave, as in LLaVA's mixture.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .entries import caption_sample, fields_of, id_of, read_object
from .errors import DataError


def read_vqav2(files: Sequence[Path]) -> Iterator[tuple[Path, Any]]:
    """Samples, each with the questions' file that it is out of; in place of a question that cannot be used, an error.

    Args:
        files: Questions and annotations of one or several splits, in any order.

    Raises:
        DataError: A file is neither, or there are questions without any annotations' file.
        FileNotFoundError: A file is missing.
    """
    contents = {file: read_object(file, "questions", "annotations") for file in files}
    answers: dict[Any, Any] = {}
    for content in contents.values():
        for annotation in map(fields_of, content.get("annotations", [])):
            answers[id_of(annotation, "question_id")] = annotation.get("multiple_choice_answer")
    answers.pop(None, None)
    if not answers:
        raise DataError("no file holds `annotations`; name both the questions and the annotations", file=files[0])
    if not any("questions" in content for content in contents.values()):
        raise DataError("no file holds `questions`; name both the questions and the annotations", file=files[0])
    for file, content in contents.items():
        for sample in _samples(content, answers):
            yield file, sample


def _samples(content: dict[str, Any], answers: dict[Any, Any]) -> Iterator[dict[str, Any] | DataError]:
    image_set = str(content.get("data_subtype") or "train2014")
    samples: dict[str, dict[str, Any]] = {}
    for question in map(fields_of, content.get("questions", [])):
        question_id, image_id = id_of(question, "question_id"), id_of(question, "image_id")
        text = question.get("question")
        try:
            if not isinstance(text, str) or not text.strip() or image_id is None:
                raise DataError("expected {question_id, image_id, question} with a question")
            if question_id not in answers:
                raise DataError("the question has no annotation")
            name = f"COCO_{image_set}_{image_id:0>12}.jpg"
            sample = caption_sample(image_id, name, answers[question_id], text.strip())
        except DataError as error:
            yield DataError(error.reason, sample_id=str(question_id))
            continue
        known = samples.setdefault(name, sample)
        if known is not sample:
            asked, answer = sample["conversations"]
            known["conversations"] += [asked | {"value": text.strip()}, answer]
    yield from samples.values()
