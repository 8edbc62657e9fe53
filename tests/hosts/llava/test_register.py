"""Unmodified LLaVA of `llava-torch` with the tower in it: built, run and trained by LLaVA's own classes."""

import pytest
import torch

from helpers import tiny_llava, tiny_towers
from helpers.tiny_llava import IMAGE
from tove_lvlm.config import UserError
from tove_lvlm.hosts.llava import register
from tove_lvlm.hosts.llava.projector import ToVEProjector
from tove_lvlm.hosts.llava.tower import ToVELlavaTower
from tove_lvlm.tower.fusion import ToVEFusion


@pytest.fixture(scope="module")
def llava():
    return tiny_llava.load()


@pytest.fixture
def model(llava, llm, tiny_tower_yaml):
    return tiny_llava.build(llava, llm, f"tove:{tiny_tower_yaml}").eval()


# ---- the plugin ----


def test_register_may_be_called_again(llava):
    replaced = [
        (llava.arch, "build_vision_tower"),
        (llava.arch, "build_vision_projector"),
        (llava.builder, "load_pretrained_model"),
    ]
    held = [getattr(module, name) for module, name in replaced]
    assert register() == "llava"
    assert [getattr(module, name) for module, name in replaced] == held
    assert all(not hasattr(function._tove_original, "_tove_original") for function in held)


def test_other_towers_stay_llavas_own(llava, tiny_tower_yaml):
    clip = str(tiny_tower_yaml.parent / "clip")
    tower = llava.arch.build_vision_tower(tiny_llava.arguments(clip))
    assert type(tower).__module__ == "llava.model.multimodal_encoder.clip_encoder"
    config = llava.llama.LlavaConfig(hidden_size=32, mm_hidden_size=8, mm_vision_tower=clip)
    assert type(llava.arch.build_vision_projector(config)) is torch.nn.Linear


@pytest.mark.parametrize("name", ["ToVE", "tove/tower.yaml", "toves"])
def test_an_unknown_tower(llava, name):
    with pytest.raises(UserError, match=rf"unknown vision tower `{name}`.*tove:PATH"):
        llava.arch.build_vision_tower(tiny_llava.arguments(name))


def test_no_tower(llava):
    with pytest.raises(UserError, match="no vision tower is named"):
        llava.arch.build_vision_tower(tiny_llava.arguments(None))


# ---- what it computes ----


def test_the_fusion_is_the_towers_own_code_and_sits_in_the_projector(model):
    assert isinstance(model.get_vision_tower(), ToVELlavaTower)
    projector = model.model.mm_projector
    assert isinstance(projector, ToVEProjector)
    assert type(projector.tove_fusion) is ToVEFusion
    assert [type(projector.get_submodule(name)).__name__ for name in projector.layers] == ["Linear", "GELU", "Linear"]
    assert model.config.mm_hidden_size == model.get_vision_tower().hidden_size


def test_tokens_are_those_of_the_tower_alone(model, tiny_tower):
    projector = model.model.mm_projector
    tiny_tower.tove_fusion.load_state_dict(projector.tove_fusion.state_dict())
    tokens = tiny_tower.eval()(tiny_towers.pixels()).last_hidden_state
    want = projector.get_submodule("2")(torch.nn.functional.gelu(projector.get_submodule("0")(tokens)))
    assert torch.equal(model.encode_images(tiny_towers.pixels()), want)


def test_a_training_step_reaches_gate_transfer_and_projector_and_nothing_frozen(llava, llm, tiny_tower_yaml):
    model = tiny_llava.build(llava, llm, f"tove:{tiny_tower_yaml}", tune_mm_mlp_adapter=True).train()
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    assert {name.split(".")[1] for name in trainable} == {"mm_projector"}
    before = {name: p.detach().clone() for name, p in trainable.items()}
    optimizer = torch.optim.SGD(trainable.values(), lr=0.1)
    inputs = tiny_llava.batch()
    loss = model(**inputs, labels=inputs["input_ids"]).loss
    loss.backward()
    for name, parameter in trainable.items():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert all(p.grad is None for p in model.get_vision_tower().parameters())
    optimizer.step()
    assert all(not torch.equal(p, before[name]) for name, p in trainable.items())
    assert all(torch.equal(p, frozen[name]) for name, p in model.named_parameters() if name in frozen)
    assert model(**inputs, labels=inputs["input_ids"]).loss < loss


def test_all_experts_detached_is_llava_with_clip_alone(llava, llm, tiny_tower_yaml, model):
    plain = tiny_llava.build(llava, llm, str(tiny_tower_yaml.parent / "clip")).eval()
    own = {name: p for name, p in model.model.mm_projector.state_dict().items() if "tove_fusion" not in name}
    plain.model.mm_projector.load_state_dict(own)
    assert not torch.equal(tiny_llava.logits(model), tiny_llava.logits(plain))
    tower = model.get_vision_tower().vision_tower
    tower.detach(*tower.expert_names)
    assert torch.equal(tiny_llava.logits(model), tiny_llava.logits(plain))
    assert tiny_llava.generate(model) == tiny_llava.generate(plain)


def test_step_0_is_llava_with_clip_alone(llava, llm, tiny_tower_yaml):
    clip = str(tiny_tower_yaml.parent / "clip")
    plain = tiny_llava.build(llava, llm, clip).eval()
    fresh = tiny_llava.build(llava, llm, f"tove:{tiny_tower_yaml}", awake=False).eval()
    own = {name: p for name, p in fresh.model.mm_projector.state_dict().items() if "tove_fusion" not in name}
    plain.model.mm_projector.load_state_dict(own)
    assert torch.equal(tiny_llava.logits(fresh), tiny_llava.logits(plain))


def test_the_layers_of_the_projector_start_as_llavas_own(llava, tiny_tower_yaml):
    config = llava.llama.LlavaConfig(hidden_size=32, mm_hidden_size=32, mm_projector_type="mlp2x_gelu")
    torch.manual_seed(5)
    plain = llava.arch.build_vision_projector(config)
    config.mm_vision_tower = f"tove:{tiny_tower_yaml}"
    torch.manual_seed(5)
    ours = llava.arch.build_vision_projector(config).state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in plain.state_dict().items())


def test_a_saved_tower_brings_its_trained_fusion(llava, llm, tiny_tower, tmp_path):
    tiny_towers.wake(tiny_tower, seed=3).save_pretrained(tmp_path / "tower")
    model = tiny_llava.build(llava, llm, f"tove:{tmp_path / 'tower'}", awake=False).eval()
    own = model.model.mm_projector.tove_fusion.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in tiny_tower.tove_fusion.state_dict().items())
    assert model.config.mm_vision_tower == f"tove:{tmp_path / 'tower'}"


@pytest.mark.parametrize("as_list", [True, False])
def test_lists_and_several_images_at_once(model, as_list):
    images = tiny_towers.pixels(4)
    ids = torch.tensor([[1, IMAGE, 15, IMAGE, 17], [1, IMAGE, 19, IMAGE, 16]])
    with torch.no_grad():
        want = model(ids, images=images).logits
        # A list of (n, 3, H, W), or (B, n, 3, H, W): LLaVA joins them, encodes once and splits; its features of one
        # entry then stand for one <image>, so each entry holds one image here.
        entries = list(images) if as_list else images[:, None]
        assert torch.equal(model(ids, images=entries).logits, want)


def test_anyres(model):
    """LLaVA 1.6: an overview and tiles for each image, put side by side after the projector."""
    model.config.image_aspect_ratio, model.config.mm_patch_merge_type = "anyres", "spatial"
    model.config.image_grid_pinpoints = [[16, 32], [32, 16]]
    images = [tiny_towers.pixels(3), tiny_towers.pixels(3, seed=1)]
    ids = torch.tensor([[1, IMAGE, 15], [1, IMAGE, 16]])
    with torch.no_grad():
        logits = model(ids, images=images, image_sizes=[(16, 32), (32, 16)]).logits
    assert logits.shape[:2] == (2, 2 + 3 * 16)


def test_text_only_samples(model):
    """LLaVA gives them one image of zeros, which no token attends to and no balance loss counts."""
    ids = torch.tensor([[1, IMAGE, 15, 16], [1, 17, 18, 19]])
    images = torch.cat([tiny_towers.pixels(1), torch.zeros(1, 3, 16, 16)])
    seen = []
    model.model.mm_projector.tove_fusion.register_forward_pre_hook(lambda _, args: seen.append(args[2].tolist()))
    with torch.no_grad():
        both = model(ids, images=images, attention_mask=torch.ones_like(ids)).logits
        alone = model(ids[:1], images=images[:1], attention_mask=torch.ones_like(ids[:1])).logits
    assert seen == [[True, False], [True]]
    assert torch.allclose(both[0], alone[0], atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_to_dtype(model, dtype):
    model.to(dtype)
    logits = tiny_llava.logits(model, dtype)
    assert logits.isfinite().all()
    assert logits.dtype == dtype


def test_a_projector_of_another_type(llava, llm, tiny_tower_yaml):
    model = tiny_llava.build(llava, llm, f"tove:{tiny_tower_yaml}", mm_projector_type="linear")
    names = {name for name, _ in model.model.mm_projector.named_parameters() if "tove_fusion" not in name}
    assert names == {"0.weight", "0.bias"}
    assert tiny_llava.logits(model).isfinite().all()
