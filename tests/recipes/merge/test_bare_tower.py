"""A base of timm with experts merged in: a tower without experts, in an LVLM, tuned further, and with LoRA."""

import json

import pytest
import torch
import yaml

from helpers import llava_runs, merge_runs, tiny_bases, tiny_towers, training
from helpers.exported_networks import make_onnx
from helpers.small_experts import ENTRIES
from helpers.tiny_lvlm import make_data, make_llm
from tove_lvlm import build_tower
from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.config import UserError
from tove_lvlm.config.model import LoraConfig
from tove_lvlm.inference.chat import Chat
from tove_lvlm.recipes.merge.bare_tower import base_alone
from tove_lvlm.recipes.merge.student import add_lora, student_tokens, trained_part, whole_student
from tove_lvlm.tower.modeling import ToVEVisionModel

pytestmark = pytest.mark.usefixtures("one_rank")
VIT = {"architecture": "vit_tiny_patch16_224", "model_args": tiny_towers.VIT_ARGS, "image_size": 16}
CNN = {"architecture": "test_resnet", "image_size": 64}
BASES = {"vit": VIT, "cnn": CNN, "open_clip": ENTRIES["open_clip_vit"]}


def make_tower(folder, kind: str):
    return tiny_bases.make_tower_on(folder, {"family": "timm", "pretrained": "none", **BASES[kind]})


@torch.no_grad()
def measure_statistics(network: torch.nn.Module) -> None:
    """Batch norms see what random weights give, as trained ones do: else a step of Adam throws the network far off."""
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.train()
    network(pixels(64))
    for norm in norms:
        norm.eval()


def pixels(side: int) -> torch.Tensor:
    return torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def way(tmp_path_factory):
    """Folder of a model on a timm network with batch norms, tuned, and `out`, of its merging."""
    world = tmp_path_factory.mktemp("timm")
    make_llm(world / "llm")
    make_data(world / "data")
    tower = build_tower(make_tower(world / "random", "cnn"))
    measure_statistics(tower.clip.backbone)
    tower.save_pretrained(world / "tower-start")
    for stage in llava_runs.SCRIPTS:
        block = llava_runs.run_block(world, stage)
        block["model"] |= {"vision_tower": str(world / "tower-start")}
        block["model"].pop("tower")
        (world / f"{stage}.yaml").write_text(yaml.safe_dump(block, sort_keys=False))
        start = ["model.pretrain_mm_mlp_adapter=" + str(world / "out-pretrain")] if stage == "finetune" else []
        assert training.run_here(llava_runs.STAGES[stage], world / f"{stage}.yaml", start) == 0
    path = merge_runs.write_yaml(
        world, world / "out-finetune", world / "data" / "images", max_steps=30, save_steps=40, learning_rate=1e-4
    )
    assert merge_runs.run(path) == 0
    return world


@torch.no_grad()
def test_the_base_learns_what_the_tower_gave(way):
    teacher = open_checkpoint(way / "out-finetune").tower
    student = ToVEVisionModel.from_pretrained(way / "out" / "clip").eval()
    assert student.expert_names == []
    assert json.loads((way / "out" / "clip" / "merge.json").read_text())["gap"] < 0.9
    before, after = (dict(tower.clip.named_buffers()) for tower in (teacher, student))
    assert any(name.endswith("running_mean") for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before), "statistics are the base's own"
    assert not torch.equal(student(pixels(64)).last_hidden_state, teacher(pixels(64)).hidden_states[0])
    card = (way / "out" / "clip" / "README.md").read_text()
    assert "A `ToVEVisionModel` without experts" in card
    assert "ToVEVisionModel.from_pretrained(folder)" in card


@torch.no_grad()
def test_the_lvlm_reads_the_merged_base(way):
    merged = open_checkpoint(way / "out" / "lvlm")
    assert merged.tower.expert_names == []
    student = ToVEVisionModel.from_pretrained(way / "out" / "clip").eval().to(merged.tower.dtype)
    assert torch.equal(
        merged.tower(pixels(64)).last_hidden_state.float(), student(pixels(64)).last_hidden_state.float()
    )
    before, after = (training.weights(way / folder) for folder in ("out-finetune", "out/lvlm"))
    kept = {name: tensor for name, tensor in before.items() if "vision_tower" not in name}
    assert kept
    assert training.same(kept, {name: tensor for name, tensor in after.items() if "vision_tower" not in name})
    picture = sorted((way / "data" / "images").iterdir())[0]
    assert isinstance(Chat.load(way / "out" / "lvlm", device="cpu").ask(picture, "what is red ?"), str)


def test_tuning_goes_on_from_the_merged_parts(way):
    options = [
        f"model.vision_tower={way / 'out' / 'clip'}",
        f"model.llm={way / 'out' / 'llm'}",
        f"model.pretrain_mm_mlp_adapter={way / 'out' / 'pretrain'}",
        f"train.output_dir={way / 'out-retuned'}",
        "train.max_steps=2",
    ]
    assert training.run_here(llava_runs.STAGES["finetune"], way / "finetune.yaml", options) == 0
    before, after = (training.weights(way / folder) for folder in ("out/lvlm", "out-retuned"))
    frozen = {name for name in before if "vision_tower" in name}
    assert frozen
    assert all(torch.equal(before[name], after[name].to(before[name].dtype)) for name in frozen)


@pytest.mark.parametrize("kind", BASES)
def test_a_student_starts_as_the_base(tmp_path, kind):
    tower = tiny_towers.wake(build_tower(make_tower(tmp_path, kind))).eval()
    seen = pixels(BASES[kind]["image_size"])
    whole = whole_student(tower, None)
    student = trained_part(whole, tower)
    tokens = student_tokens(student, seen, tower)
    torch.testing.assert_close(tokens, tower(seen).hidden_states[0], atol=1e-5, rtol=1e-5)
    assert torch.equal(whole(seen).last_hidden_state, tower(seen).hidden_states[0])
    tokens.square().mean().backward()
    learns = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    assert learns
    assert all(name.startswith("clip.") for name in learns)
    assert all(dict(student.named_parameters())[name].grad is not None for name in learns)
    assert not any(parameter.requires_grad for parameter in tower.clip.parameters())


def test_a_base_in_a_file_of_onnx_gives_tokens_and_cannot_learn(tmp_path):
    make_onnx(tmp_path / "net.onnx")
    base = {"family": "onnx", "pretrained": "./net.onnx", "output": "features", "image_size": 16}
    tower = tiny_towers.wake(build_tower(tiny_bases.make_tower_on(tmp_path, base))).eval()
    t_clip, t_fuse = tower(pixels(16)).hidden_states
    assert t_clip.shape == t_fuse.shape
    assert not torch.equal(t_clip, t_fuse)
    whole = whole_student(tower, None)
    assert torch.equal(whole(pixels(16)).last_hidden_state, t_clip)
    with pytest.raises(UserError, match="of family `onnx`, is run by another library and cannot learn"):
        trained_part(whole, tower)


def test_lora_on_a_vision_transformer_of_timm(tmp_path):
    tower = build_tower(make_tower(tmp_path, "vit"))
    learner = add_lora(trained_part(base_alone(tower), tower), LoraConfig(lora_enable=True, lora_r=2, lora_alpha=4))
    learns = {name for name, parameter in learner.named_parameters() if parameter.requires_grad}
    assert learns
    assert all(".lora_" in name for name in learns)
    assert any("blocks.0.attn.qkv" in name for name in learns)
    assert student_tokens(learner, pixels(16), tower).requires_grad


def test_lora_on_convolutions_is_refused(tmp_path):
    tower = build_tower(make_tower(tmp_path, "cnn"))
    with pytest.raises(UserError, match="has no linear layers in its list of layers"):
        add_lora(trained_part(base_alone(tower), tower), LoraConfig(lora_enable=True))
