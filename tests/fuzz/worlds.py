"""Folders that the targets share, made once in a process: tiny models, towers and data of `tests/helpers/`."""

import functools
import os
from pathlib import Path

from helpers import base_runs, llava_runs, tiny_base, tiny_checkpoints, tiny_towers

from .property import workspace


@functools.cache
def llava_world() -> Path:
    """The language model, tower, data and YAMLs of LLaVA's two stages."""
    folder = workspace() / "llava"
    folder.mkdir()
    return llava_runs.make_world(folder)


@functools.cache
def base_world() -> Path:
    """The decoder, tower, data and YAMLs of the base model."""
    folder = workspace() / "base"
    folder.mkdir()
    return base_runs.make_world(folder)


@functools.cache
def checkpoints() -> dict[str, Path]:
    """Kind of checkpoint -> folder; `sharded` is the merged one in shards with an index. Their tower has two experts,
    since what costs time in opening one is to build its parts.
    """
    folder = workspace() / "checkpoints"
    llm, tower = llava_world() / "llm", tiny_towers.make_tower_yaml(folder / "parts", ["depth", "cnn"])
    made = tiny_checkpoints.make_checkpoints(folder, llm, tower)
    built = tiny_checkpoints.build(llm, tower=tower)
    return made | {"sharded": tiny_checkpoints.save(folder / "sharded", *built, max_shard_size="100KB")}


@functools.cache
def base_model() -> Path:
    """A folder with a base model, as training writes it."""
    tower = checkpoints()["tower"].parent / "parts" / "tower.yaml"
    built = tiny_base.build_base(base_world() / "decoder", tower)
    return tiny_base.save_base(workspace() / "base-model", *built)


@functools.cache
def image_processor():
    """A CLIP's processor of 16 x 16 pixels."""
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})


@functools.cache
def tokenizer():
    """The tiny language model's, with the token of an image."""
    from transformers import AutoTokenizer

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    loaded = AutoTokenizer.from_pretrained(llava_world() / "llm")
    loaded.add_tokens(["<image>"], special_tokens=True)
    return loaded
