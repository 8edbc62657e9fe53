"""The base model in LAVIS's checkpoints, which leave out what is frozen: loaded back, and refused by name."""

import pytest
import torch
from omegaconf import OmegaConf

from helpers import tiny_towers
from tove_lvlm.storage import WeightsError

GATE = "model.encoder.tove_fusion.gate.fc2.weight"


@pytest.fixture
def make(lavis, world):
    """`make(**keys)`: the miniature's decoder behind a tiny tower, new each time."""
    from lavis.common.registry import registry

    def build(**keys):
        block = {"vit_model": f"tove:{world.tower}", "decoder": "shipped:miniature/decoder", **keys}
        return registry.get_model_class("tove_caption").from_config(OmegaConf.create(block)).eval()

    return build


def trained(made):
    """The same model after three steps with a rate that moves everything that learns."""
    samples = {"image": tiny_towers.pixels(), "text_input": ["a red cone", "a blue sphere"]}
    optimizer = torch.optim.SGD([p for p in made.parameters() if p.requires_grad], lr=0.5)
    made.train()
    for _ in range(3):
        optimizer.zero_grad()
        made(samples)["loss"].backward()
        optimizer.step()
    return made.eval()


def save(made, file) -> dict[str, torch.Tensor]:
    """As LAVIS's `RunnerBase._save_checkpoint`."""
    frozen = {name for name, parameter in made.named_parameters() if not parameter.requires_grad}
    tensors = {name: tensor.clone() for name, tensor in made.state_dict().items() if name not in frozen}
    torch.save({"model": tensors}, file)
    return tensors


def logits(made) -> torch.Tensor:
    ids = torch.tensor([made.processor.prompt_ids("a red")] * 2)
    with torch.no_grad():
        return made.model(pixel_values=tiny_towers.pixels(), decoder_input_ids=ids).logits


@pytest.mark.parametrize(
    ("key", "plan"),
    [
        ("pretrained", "fusion_and_cross_attention"),
        pytest.param("finetuned", "language_model", marks=pytest.mark.full),
        pytest.param("finetuned", "all_but_backbones", marks=pytest.mark.full),
    ],
)
def test_a_checkpoint_loads_back(make, tmp_path, plan, key):
    made = trained(make(trainable=plan))
    tensors = save(made, tmp_path / "a.pth")
    assert not any(name.startswith(("model.encoder.clip", "model.encoder.experts.depth")) for name in tensors)
    again = make(trainable=plan, load_finetuned=key == "finetuned", **{key: str(tmp_path / "a.pth")})
    assert not torch.equal(logits(make(trainable=plan)), logits(made))
    assert torch.equal(logits(again), logits(made))
    captions = [model.generate({"image": tiny_towers.pixels()}, num_beams=2, min_length=5) for model in (made, again)]
    assert captions[0] == captions[1]


def test_strict_loading_too(make, tmp_path):
    """As the runner resumes, which LAVIS cannot do for its own models with a frozen part."""
    made, fresh = trained(make()), make()
    report = fresh.load_state_dict(save(made, tmp_path / "a.pth"))
    assert (report.missing_keys, report.unexpected_keys) == ([], [])
    assert torch.equal(logits(fresh), logits(made))


def spoil(tensors: dict[str, torch.Tensor], how: str) -> None:
    if how == "missing":
        del tensors[GATE]
    elif how == "unexpected":
        tensors["model.decoder.extra.weight"] = torch.zeros(1)
    elif how == "shape":
        tensors[GATE] = torch.zeros(7, 8)
    else:
        name = next(name for name in tensors if name.endswith("bn1.running_mean"))
        tensors[name] = tensors[name] + 1


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", rf"1 keys that `trainable: fusion_and_cross_attention` trains are missing \({GATE}\)"),
        ("unexpected", r"1 keys are not of this model \(model.decoder.extra.weight\).*another decoder"),
        ("shape", rf"1 tensors have another shape \({GATE} is \(7, 8\), expected \(2, 8\)"),
        ("other experts", r"1 frozen tensors have other values .*bn1.running_mean.*another CLIP or other experts"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(make, tmp_path, how, message):
    made = make()
    tensors = save(made, tmp_path / "a.pth")
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    spoil(tensors, how)
    torch.save({"model": tensors}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=rf"checkpoint `{tmp_path}/a.pth`: {message}"):
        made.load_checkpoint(str(tmp_path / "a.pth"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())


def test_a_checkpoint_of_another_plan(make, tmp_path):
    save(make(trainable="language_model"), tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="keys that `trainable: all_but_backbones` trains are missing .*tove_fusion"):
        make(trainable="all_but_backbones", pretrained=str(tmp_path / "a.pth"))


def test_a_file_that_is_not_there(make):
    with pytest.raises(WeightsError, match=r"checkpoint `no.pth` does not fit: checkpoint url or path is invalid"):
        make(pretrained="no.pth")
