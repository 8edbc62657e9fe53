"""Fixtures of the data tests: the real LLaVA, Llama-2's real tokenizer, and small LLaVA-format data sets."""

import json

import numpy as np
import pytest
from PIL import Image

from helpers import llava_reference


@pytest.fixture(scope="session")
def llava():
    return llava_reference.load()


@pytest.fixture(scope="session", params=["legacy", "current"])
def tokenizer(request):
    """Llama-2's vocabulary in both of the ways that it is used; see llava_reference."""
    make = {"legacy": llava_reference.legacy_tokenizer, "current": llava_reference.current_tokenizer}
    return make[request.param]()


@pytest.fixture(scope="session")
def image_tokenizer():
    """With the token `<image>`, id 32000."""
    tokenizer = llava_reference.current_tokenizer()
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    return tokenizer


@pytest.fixture(scope="session")
def processor():
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})


@pytest.fixture
def make_data(tmp_path):
    """Writes a data file and its images; returns (file, image folder)."""

    def make(samples, name="train.json", images=()):
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        rng = np.random.default_rng(0)
        for image_name, size in images:
            pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / image_name)
        file = tmp_path / name
        if name.endswith(".jsonl"):
            file.write_text("\n".join(json.dumps(sample) for sample in samples) + "\n")
        else:
            file.write_text(json.dumps(samples))
        return file, folder

    return make
