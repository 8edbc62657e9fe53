"""LLaVA JSON, held-out questions and pictures for projects/real_small, out of what fetch_real_small.py brought.

    python scripts/make_real_small_data.py [--source outputs/real_small/source] [--to outputs/real_small/data]

    train/pretrain.json        captions of stage 1
    train/finetune.json        conversations of stage 2: a question each, since an answer would give the next one away
    heldout/questions.jsonl    a question a line, with the choices, as `tove eval questions` reads them
    heldout/pictures.json      a conversation about each held-out picture, to fill an expert cache with
    */images/                  PNG, on white, at most 320 pixels a side

The same files come out each time (`counts.json` says how many of what); about a minute.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from real_small.question_sets import Asked, all_pictures

from tove_lvlm import storage
from tove_lvlm.config import UserError, exit_on_error

DEFAULT = Path("outputs") / "real_small"
CAPTION_QUESTION = "Describe the picture in a few words."
SPLITS = ("train", "heldout")


@exit_on_error
def main(arguments: Sequence[str] | None = None) -> None:
    """Write the folder; one that is there is replaced as a whole.

    Args:
        arguments: Of the command line; those of the process when left out.

    Raises:
        UserError: Nothing was fetched.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--source", type=Path, default=DEFAULT / "source", help="what was fetched")
    parser.add_argument("--to", type=Path, default=DEFAULT / "data", help="folder to write")
    options = parser.parse_args(arguments)
    packages = options.source / "packages"
    if not packages.is_dir():
        raise UserError(f"`{packages}` does not exist; python scripts/fetch_real_small.py --to {options.source}")
    pictures = all_pictures(packages)
    with storage.atomic_dir(options.to) as folder:
        for split in SPLITS:
            (folder / split / "images").mkdir(parents=True)
        for picture in pictures:
            picture.image.save(folder / SPLITS[picture.is_held_out] / "images" / f"{picture.name}.png")
        counts = write_questions(pictures, folder)
    print(f"wrote {options.to}: {json.dumps(counts)}")


def write_questions(pictures: Sequence[Asked], folder: Path) -> dict[str, object]:
    """Write everything but the images; how many of what."""
    learned = [picture for picture in pictures if not picture.is_held_out]
    captions = [_conversation(picture, CAPTION_QUESTION, picture.caption) for picture in learned if picture.caption]
    rows = [
        _conversation(picture, question.text, question.answer) for picture in learned for question in picture.questions
    ]
    held_out = [
        {
            "question_id": f"{picture.name}-{number}",
            "image": f"{picture.name}.png",
            "text": question.text,
            "answer": question.answer,
            "family": question.family,
            "choices": question.choices,
        }
        for picture in pictures
        if picture.is_held_out
        for number, question in enumerate(picture.questions)
    ]
    asked_about = [picture for picture in pictures if picture.is_held_out and picture.questions]
    first = [_conversation(one, one.questions[0].text, one.questions[0].answer) for one in asked_about]
    storage.save_json(folder / "heldout" / "pictures.json", first)
    storage.save_json(folder / "train" / "pretrain.json", captions)
    storage.save_json(folder / "train" / "finetune.json", rows)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in held_out)
    (folder / "heldout" / "questions.jsonl").write_text(lines, encoding="utf-8")
    asked = Counter(question.family for picture in learned for question in picture.questions)
    counts = {
        "pictures": {"train": len(learned), "heldout": len(pictures) - len(learned)},
        "captions": len(captions),
        "rows": len(rows),
        "questions": {"train": dict(asked), "heldout": dict(Counter(row["family"] for row in held_out))},
    }
    storage.save_json(folder / "counts.json", counts)
    return counts


def _conversation(picture: Asked, question: str, answer: str) -> dict[str, object]:
    """A row of LLaVA's JSON, the image before the question."""
    said = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"id": picture.name, "image": f"{picture.name}.png", "conversations": said}


if __name__ == "__main__":
    main()
