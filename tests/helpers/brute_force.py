"""What surgery/ measures, computed the plain way: stock forwards. For the tests of surgery/."""

import json
from pathlib import Path

import torch

from tove_lvlm.data.conversations import IGNORE_INDEX


def questions_as_llava(path: Path) -> list[dict]:
    """Lines of questions as LLaVA samples, written out here once more so that a test has its own reading."""
    rows = map(json.loads, path.read_text().splitlines())
    return [
        {
            "id": row["question_id"],
            "image": row["image"],
            "conversations": [
                {"from": "human", "value": "<image>\n" + row["text"]},
                {"from": "gpt", "value": row["answer"]},
            ],
        }
        for row in rows
    ]


def encode_rows(loaded, samples: list[dict], image_folder: Path) -> dict:
    """Samples as one batch for a stock model, by the classes that training uses."""
    from tove_lvlm.data.collator import ToVECollator
    from tove_lvlm.data.dataset import ToVEDataset
    from tove_lvlm.data.images import pixel_shape

    file = image_folder.parent / f"rows-{abs(hash(json.dumps(samples)))}.json"
    file.write_text(json.dumps(samples))
    core = loaded.model
    common = {
        "tokenizer": loaded.processor.tokenizer,
        "num_image_tokens": core.config.image_seq_length,
        "model_max_length": 400,
    }
    dataset = ToVEDataset(
        file,
        image_processor=loaded.image_processor,
        image_folder=image_folder,
        image_aspect_ratio=loaded.image_aspect_ratio,
        **common,
    )
    collate = ToVECollator(image_shape=pixel_shape(loaded.image_processor), **common)
    return collate([dataset[index] for index in range(len(dataset))])


def stock_quality(loaded, samples, image_folder) -> tuple[float, float]:
    """Loss over all answer tokens and share of wholly right answers, by one unmodified forward."""
    batch = encode_rows(loaded, samples, image_folder)
    batch.pop("sample_ids")
    with torch.no_grad():
        out = loaded.model(**batch)
    right = []
    for labels, logits in zip(batch["labels"].tolist(), out.logits, strict=True):
        best, run = logits.argmax(-1).tolist(), []
        for place, label in enumerate([*labels[1:], IGNORE_INDEX]):
            if label != IGNORE_INDEX:
                run.append(best[place] == label)
            elif run:
                right.append(all(run))
                run = []
    return float(out.loss), sum(right) / len(right)
