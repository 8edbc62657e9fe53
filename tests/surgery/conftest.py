"""Tiny checkpoints and data shared by the tests of surgery/."""

import json
from pathlib import Path

import pytest
import tiny
import tiny_lvlm
from brute_force import encode_rows, questions_as_llava


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """Kind -> folder of one and the same tiny model with four experts."""
    folder = tmp_path_factory.mktemp("surgery")
    llm = tiny_lvlm.make_llm(folder / "llm")
    yaml = tiny.make_tower_yaml(folder / "frozen")
    return tiny_lvlm.make_checkpoints(folder / "saved", llm, yaml)


@pytest.fixture(scope="session")
def clip_only(tmp_path_factory) -> Path:
    """A merged folder without a ToVE tower."""
    import torch

    from tove_lvlm.checkpoints.from_config import build_lvlm
    from tove_lvlm.checkpoints.merged import save_merged
    from tove_lvlm.config.model import ModelConfig
    from tove_lvlm.lvlm.lora import collect_merged

    folder = tmp_path_factory.mktemp("clip_only")
    llm, clip = tiny_lvlm.make_llm(folder / "llm"), tiny.make_clip(folder / "clip")
    torch.manual_seed(0)
    model, processor = build_lvlm(ModelConfig(llm=str(llm), vision_tower="clip", clip=str(clip)))
    save_merged(folder / "merged", collect_merged(model), model, processor)
    (folder / "merged" / "tove_model.json").write_text(json.dumps({"image_aspect_ratio": "square"}))
    return folder / "merged"


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """`finetune.json` (24 conversations of two turns, every fourth without an image), `questions.jsonl`, `images/`."""
    folder = tiny_lvlm.make_data(tmp_path_factory.mktemp("world"))
    words = tiny_lvlm.WORDS
    questions = [
        {
            "question_id": f"q{index}",
            "image": f"{index // 3}.png",
            "text": f"is the {words[index % 20]} ?",
            "answer": words[(index * 7) % 20],
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
    from tove_lvlm.checkpoints.merged import save_merged
    from tove_lvlm.lvlm.lora import collect_merged

    loaded = open_checkpoint(checkpoints["merged"])
    batch = encode_rows(loaded, questions_as_llava(world / "questions.jsonl")[:15], world / "images")
    batch.pop("sample_ids")
    for _ in range(40):  # descent by sign; importing torch.optim's compiler would take longer than all this
        gradients = torch.autograd.grad(loaded.model(**batch).loss, parameters := _trainable(loaded.model))
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 3e-3 * gradient.sign()
    folder = tmp_path_factory.mktemp("trained") / "merged"
    save_merged(folder, collect_merged(loaded.model), loaded.model, loaded.processor)
    (folder / "tove_model.json").write_text((checkpoints["merged"] / "tove_model.json").read_text())
    return folder


def _trainable(model) -> list:
    return [p for p in (*model.model.language_model.parameters(), *model.lm_head.parameters()) if p.requires_grad]
