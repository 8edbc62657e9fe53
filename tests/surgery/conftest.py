"""Tiny data, and a model that has learnt some of it, shared by the tests of surgery/."""

import json
import shutil
from pathlib import Path

import pytest

from helpers.brute_force import encode_rows, questions_as_llava
from helpers.tiny_checkpoints import save
from helpers.tiny_lvlm import WORDS, make_data


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """`finetune.json` (24 conversations of two turns, every fourth without an image), `questions.jsonl`, `images/`."""
    folder = make_data(tmp_path_factory.mktemp("world"))
    questions = [
        {
            "question_id": f"q{index}",
            "image": f"{index // 3}.png",
            "text": f"is the {WORDS[index % 20]} ?",
            "answer": WORDS[(index * 7) % 20],
            "family": "tiny",
        }
        for index in range(30)
    ]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, questions)))
    return folder


@pytest.fixture(scope="session")
def trained(checkpoints, world, tmp_path_factory) -> Path:
    """The merged model after it has learnt some of the answers of `questions.jsonl` by heart."""
    import torch

    from tove_lvlm.checkpoints import open_checkpoint

    loaded = open_checkpoint(checkpoints["merged"])
    batch = encode_rows(loaded, questions_as_llava(world / "questions.jsonl")[:15], world / "images")
    batch.pop("sample_ids")
    for _ in range(40):  # descent by sign; importing torch.optim's compiler would take longer than all this
        gradients = torch.autograd.grad(loaded.model(**batch).loss, parameters := _trainable(loaded.model))
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 3e-3 * gradient.sign()
    folder = save(tmp_path_factory.mktemp("trained") / "merged", loaded.model, loaded.processor)
    shutil.copy(checkpoints["merged"] / "tove_model.json", folder)
    return folder


def _trainable(model) -> list:
    return [p for p in (*model.model.language_model.parameters(), *model.lm_head.parameters()) if p.requires_grad]
