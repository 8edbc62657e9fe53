"""The tower as `visual_encoder`: what it computes, what LAVIS may freeze, and which checkpoints it takes."""

import pytest
import torch
from torch import nn

from helpers import tiny_towers
from tove_lvlm.config import UserError
from tove_lvlm.hosts.lavis.tower import ToVEVisualEncoder
from tove_lvlm.storage import WeightsError


@pytest.fixture
def encoder(tiny_tower) -> ToVEVisualEncoder:
    return ToVEVisualEncoder(tiny_towers.wake(tiny_tower), source="tower.yaml").eval()


def trainable(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def freeze_as_lavis_does(module: nn.Module) -> None:
    """Lines of every BLIP-2 constructor with `freeze_vit: True`."""
    for _, parameter in module.named_parameters():
        parameter.requires_grad = False
    module = module.eval()
    module.train = lambda mode=True: module


def test_tokens_are_the_towers(encoder):
    assert encoder.num_features == tiny_towers.WIDTH
    tokens = encoder(tiny_towers.pixels())
    assert torch.equal(tokens, encoder.tower(tiny_towers.pixels()).last_hidden_state)
    assert tokens.shape == (2, 16, tiny_towers.WIDTH)  # no class token


def test_tokens_come_in_the_images_dtype(encoder):
    encoder.tower.clip.to(torch.bfloat16)
    encoder.tower.experts.to(torch.bfloat16)
    assert encoder(tiny_towers.pixels()).dtype == torch.float32


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_precision_is_of_the_frozen_parts_where_there_is_cuda(tiny_tower, monkeypatch, precision, dtype):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    full = ToVEVisualEncoder(tiny_towers.wake(tiny_tower), precision).eval()(tiny_towers.pixels())
    assert {parameter.dtype for parameter in tiny_tower.parameters()} == {torch.float32}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    encoder = ToVEVisualEncoder(tiny_tower, precision).eval()
    assert {parameter.dtype for parameter in encoder.tower.clip.parameters()} == {dtype}
    assert {parameter.dtype for parameter in encoder.tower.experts.parameters()} == {dtype}
    assert {parameter.dtype for parameter in encoder.tower.tove_fusion.parameters()} == {torch.float32}
    half = encoder(tiny_towers.pixels())
    assert half.dtype == torch.float32
    assert 0 < (half - full).abs().max() < 0.1 * full.abs().max()


def test_freeze_vit_leaves_the_fusion_trainable(encoder):
    freeze_as_lavis_does(encoder)
    assert trainable(encoder) == {
        f"tower.tove_fusion.{name}" for name, _ in encoder.tower.tove_fusion.named_parameters()
    }
    encoder.train()
    assert encoder.tower.tove_fusion.training
    encoder(tiny_towers.pixels()).square().mean().backward()
    assert encoder.tower.tove_fusion.gate.fc2.weight.grad.abs().sum() > 0
    assert not encoder.tower.clip.training


def test_every_trainable_parameter_gets_a_gradient(encoder):
    """Else DistributedDataParallel, as LAVIS uses it, stops; here also with detached experts."""
    encoder.tower.detach("cnn", "depth")
    encoder = ToVEVisualEncoder(encoder.tower, source="x")
    encoder(tiny_towers.pixels()).square().mean().backward()
    without = {name for name, p in encoder.named_parameters() if p.requires_grad and p.grad is None}
    assert not without
    assert not any(".cnn." in name or ".depth." in name for name in trainable(encoder))
    encoder.tower.detach(*encoder.tower.expert_names)
    assert not trainable(ToVEVisualEncoder(encoder.tower, source="x"))


def test_layer_of_a_layerwise_learning_rate(encoder):
    """LAVIS's main branch: scales of length n + 2, the last is 1."""
    scales = [0.5 ** (encoder.get_num_layer() + 1 - i) for i in range(encoder.get_num_layer() + 2)]
    assert scales[encoder.get_num_layer("tower.tove_fusion.gate.fc1.weight")] == 1


def test_unknown_precision(tiny_tower):
    with pytest.raises(UserError, match="`vit_precision` is `int8`; valid: fp32, fp16, bf16"):
        ToVEVisualEncoder(tiny_tower, precision="int8")


# ---- checkpoints, in a model that LAVIS would load with strict=False ----


class Model(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.visual_encoder = encoder


def as_lavis_saves(model: nn.Module) -> dict[str, torch.Tensor]:
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if name not in frozen}


@pytest.fixture
def saved(encoder):
    return as_lavis_saves(Model(encoder))


@pytest.mark.parametrize("strict", [True, False])
def test_a_checkpoint_without_the_frozen_parts_loads(encoder, saved, strict):
    before = encoder(tiny_towers.pixels())
    frozen = encoder.tower.clip.state_dict()
    tiny_towers.wake(encoder.tower, seed=1)
    assert not torch.equal(encoder(tiny_towers.pixels()), before)
    report = Model(encoder).load_state_dict(saved, strict=strict)
    assert not report.missing_keys
    assert torch.equal(encoder(tiny_towers.pixels()), before)
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in encoder.tower.clip.state_dict().items())


GATE = "visual_encoder.tower.tove_fusion.gate.fc2.weight"


def spoil(saved: dict[str, torch.Tensor], how: str) -> dict[str, torch.Tensor]:
    if how == "missing":
        del saved[GATE]
    elif how == "unexpected":
        saved["visual_encoder.blocks.0.attn.qkv.weight"] = torch.zeros(3)
    elif how == "before shared_out":
        saved |= {f"visual_encoder.tower.tove_fusion.transfers.{name}.fc2.weight": torch.zeros(8, 8) for name in "ab"}
        saved = {name: tensor for name, tensor in saved.items() if "shared_out" not in name}
    elif how == "shape":
        saved[GATE] = torch.zeros(7, 8)
    elif how == "other experts":
        name = next(name for name in saved if name.endswith("bn1.running_mean"))
        saved[name] = saved[name] + 1
    else:
        saved = {"Qformer.weight": torch.zeros(1)}
    return saved


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", rf"1 keys of tove_fusion are missing \({GATE}\).*not be the trained one"),
        (
            "unexpected",
            r"1 keys are not of this tower \(visual_encoder.blocks.0.attn.qkv.weight\).*another vision encoder",
        ),
        (
            "before shared_out",
            r"2 keys are not .*trained with `fusion: \{transfer: separate\}`: write that in the tower's",
        ),
        ("shape", rf"{GATE} is \(7, 8\), expected \(4, 8\)"),
        ("other experts", r"1 frozen tensors have other values .*bn1.running_mean.*another CLIP or other experts"),
        ("nothing", r"keys of tove_fusion are missing"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(encoder, saved, how, message):
    model = Model(encoder)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        model.load_state_dict(spoil(saved, how), strict=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_saved_tower_keeps_its_gate_where_the_checkpoint_has_none(encoder, tmp_path):
    model = Model(ToVEVisualEncoder(encoder.tower, source=tmp_path))
    before = model.state_dict()[GATE].clone()
    model.load_state_dict({"Qformer.weight": torch.zeros(1)}, strict=False)
    assert torch.equal(model.state_dict()[GATE], before)
