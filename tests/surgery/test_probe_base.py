"""Quality of a base model with any set of experts is what the model says that has only these experts."""

import json

import pytest
import torch

from helpers.tiny_base import build_base, save_base
from helpers.tiny_decoders import make_decoder
from helpers.tiny_lvlm import make_data
from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.data.images import read_image, to_pixels
from tove_lvlm.surgery.probe import Probe
from tove_lvlm.surgery.probe_data import read_probe_data


@pytest.fixture(scope="module")
def base(tmp_path_factory, tiny_tower_yaml):
    folder = tmp_path_factory.mktemp("base")
    make_data(folder / "data", num=8, text_only=False)
    save_base(folder / "model", *build_base(make_decoder(folder / "decoder"), tiny_tower_yaml))
    return folder


def plain_quality(loaded, file) -> tuple[float, float]:
    """Question after question by the model's own forward."""
    losses, right, num = 0.0, 0, 0
    samples = json.loads(file.read_text())
    for sample in samples:
        image = to_pixels(read_image(file.parent / "images" / sample["image"]), loaded.image_processor, "square")
        talk = sample["conversations"]
        for question, given in zip(talk[::2], talk[1::2], strict=True):
            prompt = loaded.processor.prompt_ids(question["value"].replace("<image>\n", ""))
            ids, _ = loaded.processor.answer_ids(prompt, given["value"])
            with torch.no_grad():
                log_p = loaded.model(pixel_values=image[None], decoder_input_ids=torch.tensor([ids])).logits[0]
            log_p = log_p.log_softmax(-1)[len(prompt) - 1 : -1]
            said = torch.tensor(ids[len(prompt) :])
            losses -= log_p.gather(1, said[:, None]).sum().item()
            right += bool((log_p.argmax(-1) == said).all())
            num += len(said)
    return losses / num, right / sum(len(sample["conversations"]) // 2 for sample in samples)


def test_any_subset_is_a_tower_without_the_others(base):
    file = base / "data" / "finetune.json"
    loaded = open_checkpoint(base / "model")
    names = loaded.tower.expert_names
    sets = [names, names[1:], []]
    found = Probe(loaded, read_probe_data(data=file), batch_size=3).quality(sets)
    for kept, quality in zip(sets, found, strict=True):
        fresh = open_checkpoint(base / "model")
        if away := [name for name in names if name not in kept]:
            fresh.tower.detach(*away)
        loss, score = plain_quality(fresh, file)
        assert quality.loss == pytest.approx(loss, abs=1e-4)
        assert quality.score == pytest.approx(score)
        assert quality.num_answers == 16
    assert len({round(quality.loss, 4) for quality in found}) == 3
