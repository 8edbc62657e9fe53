"""The student: a CLIP cut above the layer that is read, another CLIP, LoRA."""

import json

import pytest
import torch

from helpers import tiny_towers
from tove_lvlm.config import UserError
from tove_lvlm.config.model import LoraConfig
from tove_lvlm.recipes.merge.student import add_lora, cut, whole_student


@pytest.mark.parametrize("select_layer", [-1, -2, 1, 0, -4])
def test_cut_student_gives_the_hidden_state(tower, select_layer):
    whole = whole_student(tower, None)
    student = cut(whole, select_layer)
    expected = whole(tiny_towers.pixels(3), output_hidden_states=True).hidden_states[select_layer]
    assert torch.equal(student(tiny_towers.pixels(3)).last_hidden_state, expected)
    assert not any(p is q for p in student.parameters() for q in whole.parameters())


def test_merged_lora_equals_unmerged(tower):
    from tove_lvlm.lvlm.lora import collect_merged

    whole = whole_student(tower, None)
    student = cut(whole, -2)
    student.requires_grad_(False)
    student = add_lora(student, LoraConfig(lora_enable=True, lora_r=3, lora_alpha=6, lora_dropout=0.0)).eval()
    trained = [name for name, p in student.named_parameters() if p.requires_grad]
    assert trained
    assert all(".lora_" in name for name in trained)
    assert len([name for name in trained if "lora_A" in name]) == 2 * 6
    for name, parameter in student.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    before = whole(tiny_towers.pixels(3), output_hidden_states=True).hidden_states
    whole.load_state_dict(whole.state_dict() | collect_merged(student))
    after = whole(tiny_towers.pixels(3), output_hidden_states=True).hidden_states
    torch.testing.assert_close(
        after[-2], student(pixel_values=tiny_towers.pixels(3)).last_hidden_state, rtol=1e-4, atol=1e-4
    )
    assert not torch.allclose(after[-2], before[-2], atol=0.1)


@pytest.mark.parametrize(
    ("change", "word"),
    [({"hidden_size": 48, "num_attention_heads": 2}, "hidden_size"), ({"image_size": 32}, "image_size")],
)
def test_another_clip_of_other_sizes_is_refused(tower, tmp_path, monkeypatch, change, word):
    monkeypatch.setattr(tiny_towers, "CLIP_ARCHITECTURE", tiny_towers.CLIP_ARCHITECTURE | change)
    with pytest.raises(UserError, match=word):
        whole_student(tower, str(tiny_towers.make_clip(tmp_path / "clip")))


def test_another_clip_of_the_same_sizes_is_taken(tower, tmp_path):
    folder = tiny_towers.make_clip(tmp_path / "clip", seed=5)
    student = whole_student(tower, str(folder))
    assert not torch.equal(
        student(tiny_towers.pixels()).last_hidden_state, tower.clip(tiny_towers.pixels()).last_hidden_state
    )
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | {"image_std": [0.1, 0.2, 0.3]}))
    with pytest.raises(UserError, match="normalises"):
        whole_student(tower, str(folder))
