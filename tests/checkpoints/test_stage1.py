"""The light folder of stage 1."""

import pytest
import torch
from safetensors.torch import load_file

from helpers import tiny_towers
from tove_lvlm.checkpoints.from_config import build_lvlm
from tove_lvlm.checkpoints.projector import collect_projector
from tove_lvlm.checkpoints.stage1 import save_stage1
from tove_lvlm.config import ConfigError
from tove_lvlm.config.model import PROJECTOR_FILE, ModelConfig
from tove_lvlm.lvlm.parts import adapter_parts


def test_light_folder_holds_projector_and_fusion_and_nothing_frozen(built, tmp_path):
    model, processor = built
    save_stage1(tmp_path, collect_projector(model), model, processor)
    tensors = load_file(tmp_path / PROJECTOR_FILE)
    expected = {
        f"{prefix}.{name}": parameter
        for prefix, part in adapter_parts(model).items()
        for name, parameter in part.named_parameters()
    }
    assert tensors.keys() == expected.keys()
    assert {key.split(".")[0] for key in tensors} == {"multi_modal_projector", "vision_tower"}
    assert all(key.startswith(("multi_modal_projector.", "vision_tower.tove_fusion.")) for key in tensors)
    assert all(torch.equal(tensors[key], expected[key]) for key in tensors)


def test_stage_two_starts_where_stage_one_ended(built, llm, tiny_tower_yaml, tmp_path):
    model, processor = built
    save_stage1(tmp_path, collect_projector(model), model, processor)
    config = ModelConfig(llm=str(llm), tower=str(tiny_tower_yaml), pretrain_mm_mlp_adapter=str(tmp_path))
    again, _ = build_lvlm(config)
    ids = torch.tensor([[1, *[model.config.image_token_id] * tiny_towers.SIDE**2, 300]])
    with torch.no_grad():
        a, b = (m.eval()(input_ids=ids, pixel_values=tiny_towers.pixels(1)).logits for m in (model, again))
    assert torch.equal(a, b)


def test_folder_of_another_tower_is_refused_by_name(built, llm, tiny_tower_yaml, tmp_path):
    model, processor = built
    save_stage1(tmp_path, collect_projector(model), model, processor)
    clip = ModelConfig(
        llm=str(llm), vision_tower="clip", tower=str(tiny_tower_yaml), pretrain_mm_mlp_adapter=str(tmp_path)
    )
    with pytest.raises(ConfigError, match=r"vision_tower\.tove_fusion.*another `model.vision_tower`"):
        build_lvlm(clip)


def test_shape_that_does_not_fit_names_file_and_tensor(built, llm, tiny_tower_yaml, tmp_path):
    model, processor = built
    tensors = collect_projector(model)
    tensors["multi_modal_projector.linear_1.weight"] = torch.zeros(3, 3)
    save_stage1(tmp_path, tensors, model, processor)
    config = ModelConfig(llm=str(llm), tower=str(tiny_tower_yaml), pretrain_mm_mlp_adapter=str(tmp_path))
    with pytest.raises(ConfigError, match=r"projector\.safetensors.*`linear_1\.weight` is \(3, 3\)"):
        build_lvlm(config)
