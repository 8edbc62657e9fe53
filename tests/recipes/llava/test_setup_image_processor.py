"""Every folder that a stage writes has the image processor of its training."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from helpers.llava_runs import STAGES
from tove_lvlm.data.images import to_pixels
from tove_lvlm.train.stage import load_run

FOLDERS = {"pretrain": ["."], "finetune": [".", "adapter"]}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("tower", ["tove", "clip"])
@pytest.mark.parametrize("aspect_ratio", ["square", "pad"])
def test_stock_transformers_gives_a_long_picture_the_pixels_of_training(world, tmp_path, stage, tower, aspect_ratio):
    options = [f"model.vision_tower={tower}", f"data.image_aspect_ratio={aspect_ratio}"]
    setup = STAGES[stage].build(load_run(STAGES[stage], world / f"{stage}.yaml", options))
    out = tmp_path / "out"
    out.mkdir()
    setup.results(SimpleNamespace(model=setup.model))(out)
    image = Image.effect_noise((40, 20), 90).convert("RGB")
    expected = to_pixels(image, setup.dataset.image_processor, aspect_ratio)
    for folder in FOLDERS[stage]:
        processor = AutoProcessor.from_pretrained(out / folder, backend="pil")
        assert torch.equal(processor.image_processor(image, return_tensors="pt")["pixel_values"][0], expected)
