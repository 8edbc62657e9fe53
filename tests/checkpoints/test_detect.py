"""`open_checkpoint` takes whatever the scripts write, and leaves detached experts' weights where they are."""

import json
import shutil

import pytest
import torch
import yaml

from helpers import tiny_towers
from helpers.tiny_checkpoints import make_checkpoints
from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.config import ConfigError, UserError
from tove_lvlm.config.model import MODEL_FILE
from tove_lvlm.storage import WeightsError, load_tensors, save_tensors


@pytest.mark.parametrize("kind", ["tower", "stage1", "adapter", "merged"])
def test_every_kind_opens_with_the_same_tower(checkpoints, kind):
    loaded = open_checkpoint(checkpoints[kind])
    assert (loaded.kind, loaded.folder) == (kind, checkpoints[kind])
    assert not loaded.model.training
    pixels = tiny_towers.pixels()
    expected = open_checkpoint(checkpoints["tower"]).tower(pixels).last_hidden_state
    assert torch.equal(loaded.tower(pixels).last_hidden_state, expected)
    assert loaded.image_processor.size is not None


def test_output_dir_without_a_merged_model_opens_its_adapter(checkpoints, tmp_path):
    shutil.copytree(checkpoints["adapter"], tmp_path / "adapter")
    shutil.copytree(checkpoints["stage1"], tmp_path / "pretrain")
    loaded = open_checkpoint(tmp_path)
    assert (loaded.kind, loaded.folder) == ("adapter", tmp_path / "adapter")


def test_adapter_and_merged_model_answer_alike(checkpoints):
    ids = torch.arange(5, 40)[None]
    logits = [open_checkpoint(checkpoints[kind]).model(input_ids=ids).logits for kind in ("adapter", "merged")]
    torch.testing.assert_close(*logits, atol=1e-5, rtol=1e-4)


def test_detached_experts_of_an_adapter_are_not_even_read(checkpoints, tmp_path, tiny_tower_yaml):
    """The expert's folder is gone, and the model opens all the same."""
    shutil.copytree(checkpoints["adapter"], tmp_path / "adapter")
    world = shutil.copytree(tiny_tower_yaml.parent, tmp_path / "tower")
    shutil.rmtree(world / "cnn")
    tower = yaml.safe_load(tiny_tower_yaml.read_text())
    tower["experts"][3] |= {**tiny_towers.EXPERTS["cnn"], "pretrained": "hub/gone"}
    (world / "tower.yaml").write_text(yaml.safe_dump(tower))
    about = json.loads((tmp_path / "adapter" / MODEL_FILE).read_text())
    about["model"] |= {"tower": str(world / "tower.yaml"), "detached": ["cnn"]}
    (tmp_path / "adapter" / MODEL_FILE).write_text(json.dumps(about))
    loaded = open_checkpoint(tmp_path / "adapter")
    assert loaded.tower.attached_names == ["depth", "normals", "shapes"]
    expected = open_checkpoint(checkpoints["tower"]).tower
    expected.detach("cnn")
    pixels = tiny_towers.pixels()
    assert torch.equal(loaded.tower(pixels).last_hidden_state, expected(pixels).last_hidden_state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {k: v for k, v in t.items() if "tove_fusion" not in k}, r"tove_fusion.*gate.fc1.bias"),
        (lambda t: {k: v for k, v in t.items() if "linear_2" not in k}, r"multi_modal_projector.*linear_2"),
        (lambda t: {k: v[:3] if "linear_2.bias" in k else v for k, v in t.items()}, r"linear_2.bias"),
        (lambda t: t | {"vision_tower.sam": torch.zeros(1)}, r"also holds `vision_tower.sam`"),
    ],
)
def test_an_adapter_without_its_fusion_or_projector_is_refused(checkpoints, tmp_path, change, message):
    """peft only warns, and the gate would be a new one."""
    adapter = shutil.copytree(checkpoints["adapter"], tmp_path / "adapter")
    save_tensors(adapter / "non_lora.safetensors", change(load_tensors(adapter / "non_lora.safetensors")))
    with pytest.raises(WeightsError, match=rf"non_lora.safetensors.*{message}"):
        open_checkpoint(adapter)


def test_what_is_no_checkpoint_is_one_clear_line(tmp_path, checkpoints):
    with pytest.raises(UserError, match="does not exist"):
        open_checkpoint(tmp_path / "nowhere")
    with pytest.raises(UserError, match="neither a merged model .* nor an adapter"):
        open_checkpoint(tmp_path)
    foreign = shutil.copytree(checkpoints["merged"], tmp_path / "foreign")
    config = json.loads((foreign / "config.json").read_text())
    (foreign / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))
    with pytest.raises(UserError, match="type `llama`; expected a LLaVA model"):
        open_checkpoint(foreign)


def test_unknown_detached_expert_lists_the_names(checkpoints, tmp_path):
    adapter = shutil.copytree(checkpoints["adapter"], tmp_path / "adapter")
    about = json.loads((adapter / MODEL_FILE).read_text())
    about["model"]["detached"] = ["dept"]
    (adapter / MODEL_FILE).write_text(json.dumps(about))
    with pytest.raises(ConfigError, match="`dept`.*depth"):
        open_checkpoint(adapter)


@pytest.mark.parametrize("kind", ["adapter", "stage1"])
def test_tower_yaml_changed_since_training_is_refused(checkpoints, tmp_path, kind, tiny_tower_yaml):
    """The tensors would still fit, and every token would come out differently."""
    folder = shutil.copytree(checkpoints[kind], tmp_path / kind)
    world = shutil.copytree(tiny_tower_yaml.parent, tmp_path / "tower")
    tower = yaml.safe_load(tiny_tower_yaml.read_text())
    tower["fusion"]["temperature"] = 0.5
    (world / "tower.yaml").write_text(yaml.safe_dump(tower))
    about = json.loads((folder / MODEL_FILE).read_text())
    about["model"]["tower"] = str(world / "tower.yaml")
    (folder / MODEL_FILE).write_text(json.dumps(about))
    with pytest.raises(ConfigError, match=r"trained with `temperature` 1.0, .* now says 0.5"):
        open_checkpoint(folder)


def test_checkpoint_from_before_the_tower_was_written_down_had_no_scale(llm, tmp_path):
    """Transfers had no unit then, and an expert had both layers; a YAML that says otherwise belongs to another one."""
    earlier = {"transfer": "separate", "transfer_scale": None}
    path = tiny_towers.make_tower_yaml(tmp_path / "tower", **earlier)
    folder = make_checkpoints(tmp_path, llm, path)["adapter"]
    about = json.loads((folder / MODEL_FILE).read_text())
    del about["tower"]
    (folder / MODEL_FILE).write_text(json.dumps(about))
    tower = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(tower | {"fusion": {"stem_width": 16}}))
    assert open_checkpoint(folder).require_tower().config.fusion_settings.transfer_scale is None
    path.write_text(yaml.safe_dump(tower | {"fusion": {"stem_width": 16, "transfer_scale": 1.0}}))
    with pytest.raises(ConfigError, match="`transfer_scale` None, .* now says 1.0"):
        open_checkpoint(folder)
