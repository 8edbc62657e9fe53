"""The tower's contracts (docs/design.md, "Tower"): equality with CLIP, frozen parts, dtypes, pixels, purity."""

import copy

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, CLIPVisionModel

import tove_lvlm
from helpers import tiny_towers
from tove_lvlm import ToVEVisionConfig, ToVEVisionModel

DTYPES = [torch.float32, torch.bfloat16]


def clip_tokens(yaml, dtype) -> torch.Tensor:
    """Patch tokens of the stock CLIP that lies beside the YAML."""
    clip = CLIPVisionModel.from_pretrained(yaml.parent / "clip", dtype=dtype).eval()
    with torch.no_grad():
        states = clip(tiny_towers.pixels().to(dtype), output_hidden_states=True).hidden_states
    return states[-2][:, 1:]


def frozen(tower) -> dict[str, nn.Parameter]:
    return {name: p for name, p in tower.named_parameters() if not name.startswith("tove_fusion.")}


# ---- CLIP stays CLIP ----


@pytest.mark.parametrize("dtype", DTYPES)
def test_step_0_is_clip_bit_for_bit(tiny_tower_yaml, tiny_tower, dtype):
    output = tiny_tower.to(dtype)(tiny_towers.pixels())
    expected = clip_tokens(tiny_tower_yaml, dtype)
    assert expected.std() > 0.1
    assert torch.equal(output.last_hidden_state, expected)
    assert torch.equal(output.hidden_states[0], expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("training", [False, True])
def test_all_detached_is_clip_bit_for_bit(tiny_tower_yaml, tiny_tower, dtype, training):
    tower = tiny_towers.wake(tiny_tower).to(dtype).train(training)
    expected = clip_tokens(tiny_tower_yaml, dtype)
    assert not torch.equal(tower(tiny_towers.pixels()).last_hidden_state, expected)
    tower.detach(*tower.expert_names)
    output = tower(tiny_towers.pixels())
    assert torch.equal(output.last_hidden_state, expected)
    assert torch.equal(output.gate_probs, torch.zeros(2, 16, 4))
    assert output.balance_loss.item() == 0


def test_zero_init_off_changes_tokens_at_step_0(tiny_tower_yaml):
    tower = tove_lvlm.build_tower(tiny_tower_yaml, ["fusion.zero_init=false"])
    output = tower(tiny_towers.pixels())
    assert (output.last_hidden_state - output.hidden_states[0]).abs().mean() > 1e-3


# ---- the gate in the whole tower ----


@pytest.mark.parametrize("dtype", DTYPES)
def test_gate_probabilities(tiny_tower, dtype):
    tower = tiny_towers.wake(tiny_tower).to(dtype)
    probs = tower(tiny_towers.pixels()).gate_probs
    assert probs.shape == (2, 16, 4)
    torch.testing.assert_close(probs.sum(-1), torch.ones(2, 16), atol=1e-6, rtol=0)
    assert probs.std(dim=(0, 1)).min() > 1e-3, "a token-aware gate tells tokens apart"
    tower.detach("normals")
    probs = tower(tiny_towers.pixels()).gate_probs
    assert torch.equal(probs[..., 1], torch.zeros(2, 16))
    torch.testing.assert_close(probs.sum(-1), torch.ones(2, 16), atol=1e-6, rtol=0)


def test_a_zero_image_has_no_weight_in_the_balance_loss(tiny_tower):
    tower = tiny_towers.wake(tiny_tower)
    pixels = tiny_towers.pixels(3)
    alone = tower(pixels[:2]).balance_loss
    pixels[2] = 0
    assert tower(pixels).balance_loss.item() == pytest.approx(alone.item(), abs=1e-7)
    pixels[2, 0, 0, 0] = 1e-3
    assert tower(pixels).balance_loss.item() != pytest.approx(alone.item(), abs=1e-7)


def test_balance_loss_is_the_cv_of_the_gate_mass(tiny_tower):
    output = tiny_towers.wake(tiny_tower)(tiny_towers.pixels())
    mass = output.gate_probs.mean((0, 1))
    expected = mass.var(unbiased=False) / mass.mean() ** 2
    assert expected > 0.01
    torch.testing.assert_close(output.balance_loss, expected)


def test_noise_and_dropout_in_training_only(tiny_tower_yaml):
    tower = tove_lvlm.build_tower(tiny_tower_yaml, ["fusion.gate_noise=1.0", "fusion.expert_dropout=0.5"])
    tiny_towers.wake(tower)
    first, second = (tower(tiny_towers.pixels()) for _ in range(2))
    assert torch.equal(first.last_hidden_state, second.last_hidden_state)
    assert (first.gate_probs > 0).all()
    tower.train()
    torch.manual_seed(0)
    probs = [tower(tiny_towers.pixels(8)).gate_probs for _ in range(2)]
    assert not torch.equal(*probs)
    assert (probs[0] == 0).any()
    assert (probs[0] == 0).all(1).any(), "a masked expert is masked for all tokens of its image"


# ---- frozen parts ----


def training_step(tower, lr: float = 0.1) -> torch.Tensor:
    """One step of an optimizer that is given every parameter, with weight decay."""
    optimizer = torch.optim.AdamW(tower.parameters(), lr=lr, weight_decay=0.5)
    output = tower(tiny_towers.pixels())
    loss = output.last_hidden_state.square().mean() + output.balance_loss
    loss.backward()
    optimizer.step()
    return loss.detach()


def test_frozen_parts_do_not_move_and_the_rest_does(tiny_tower):
    before = copy.deepcopy(tiny_tower.state_dict())
    tiny_tower.train()
    for _ in range(3):
        tiny_tower.zero_grad()
        training_step(tiny_tower)
    after = tiny_tower.state_dict()
    for name in before:
        same = torch.equal(before[name], after[name])
        assert same != name.startswith("tove_fusion."), name
    for name, parameter in frozen(tiny_tower).items():
        assert parameter.grad is None, name
        assert not parameter.requires_grad, name


def test_every_trainable_parameter_gets_a_gradient_after_step_0(tiny_tower_yaml):
    tiny_tower = tove_lvlm.build_tower(tiny_tower_yaml, ["fusion.expert_dropout=0"]).train()
    training_step(tiny_tower, lr=0.01)
    tiny_tower.zero_grad()
    tiny_tower(tiny_towers.pixels()).last_hidden_state.square().mean().backward()  # without the balance loss's help
    for name, parameter in tiny_tower.tove_fusion.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def call_train_everywhere(tower) -> None:
    nn.Module.train(tower, True)
    for module in tower.modules():
        module.train(True)


@pytest.mark.parametrize(
    "wake_up",
    [
        lambda tower: tower.train(),
        lambda tower: tower.clip.train(),
        lambda tower: tower.experts.train(),
        lambda tower: [expert.train() for expert in tower.experts.values()],
        lambda tower: nn.ModuleList([tower]).train(),
    ],
)
def test_frozen_parts_stay_in_eval_mode(tiny_tower, wake_up):
    wake_up(tiny_tower)
    for part in (tiny_tower.clip, tiny_tower.experts):
        assert not any(module.training for module in part.modules())
    tiny_tower.train()
    assert tiny_tower.training
    assert tiny_tower.tove_fusion.training


def test_a_batch_norm_deep_inside_does_not_wake_either(tiny_tower):
    before = copy.deepcopy(tiny_tower.experts["cnn"].state_dict())
    assert any(name.endswith("running_mean") for name in before)
    call_train_everywhere(tiny_tower)
    tiny_tower(tiny_towers.pixels())
    for name, tensor in tiny_tower.experts["cnn"].state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_requires_grad_reaches_the_fusion_only(tiny_tower):
    tiny_tower.requires_grad_(True)
    assert not any(p.requires_grad for p in frozen(tiny_tower).values())
    assert all(p.requires_grad for p in tiny_tower.tove_fusion.parameters())
    tiny_tower.requires_grad_(False)
    assert not any(p.requires_grad for p in tiny_tower.parameters())


def test_a_host_that_makes_everything_trainable_moves_nothing_frozen(tiny_tower):
    host = nn.ModuleList([tiny_tower])
    host.requires_grad_(True)
    before = copy.deepcopy({name: p.detach() for name, p in frozen(tiny_tower).items()})
    training_step(tiny_towers.wake(tiny_tower))
    for name, parameter in frozen(tiny_tower).items():
        assert parameter.grad is None, name
        assert torch.equal(parameter, before[name]), name


# ---- dtype and device ----


class Leaky(nn.Module):
    """An expert that computes in float32 whatever it is given."""

    channels_last = channels_last_asked = False

    def __init__(self, expert: nn.Module):
        super().__init__()
        self.expert, self.spec = expert, expert.spec

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.expert(pixels).float()


def test_no_float32_leaks_out_of_an_expert(tiny_tower):
    tower = tiny_towers.wake(tiny_tower).to(torch.bfloat16)
    seen = {}
    for name in tower.expert_names:
        tower.experts[name] = Leaky(tower.experts[name])
        layer = tower.tove_fusion.transfers[name]
        layer.register_forward_hook(lambda m, args, out, name=name: seen.update({name: (args[0].dtype, out.dtype)}))
    output = tower(tiny_towers.pixels().to(torch.bfloat16))
    assert output.last_hidden_state.dtype == torch.bfloat16
    assert seen == dict.fromkeys(tower.expert_names, (torch.bfloat16, torch.bfloat16))


@pytest.mark.parametrize("dtype", DTYPES)
def test_output_dtype_is_the_towers_whatever_the_pixels_are(tiny_tower, dtype):
    tower = tiny_tower.to(dtype)
    for pixels in (tiny_towers.pixels(), tiny_towers.pixels().to(torch.bfloat16)):
        output = tower(pixels)
        assert {state.dtype for state in output.hidden_states} == {dtype}
        assert output.last_hidden_state.dtype == dtype


def test_runs_under_autocast(tiny_tower):
    tower = tiny_towers.wake(tiny_tower)
    exact = tower(tiny_towers.pixels()).last_hidden_state
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = tower(tiny_towers.pixels()).last_hidden_state
    assert (rough.float() - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_meta_device_end_to_end(tiny_tower_yaml):
    from tove_lvlm.tower.build import tower_config_from_yaml

    with torch.device("meta"):
        tower = ToVEVisionModel(tower_config_from_yaml(tiny_tower_yaml))
        output = tower(torch.zeros(2, 3, 16, 16))
    assert all(p.is_meta for p in tower.parameters())
    assert output.last_hidden_state.shape == (2, 16, 32)
    assert not any(p.requires_grad for p in frozen(tower).values())


# ---- purity, pixels, output ----


def test_forward_is_pure(tiny_tower, capsys):
    tower = tiny_towers.wake(tiny_tower)
    state = copy.deepcopy(tower.state_dict())
    pixels = tiny_towers.pixels()
    kept = pixels.clone()
    attributes = {name: set(vars(module)) for name, module in tower.named_modules()}
    first = tower(pixels)
    attributes_after = {name: set(vars(module)) for name, module in tower.named_modules()}
    second = tower(pixels)
    assert torch.equal(pixels, kept)
    assert torch.equal(first.last_hidden_state, second.last_hidden_state)
    assert all(torch.equal(tensor, tower.state_dict()[name]) for name, tensor in state.items())
    assert capsys.readouterr().out == ""
    own = {n: a - attributes[n] for n, a in attributes_after.items() if not n.startswith("clip") and a - attributes[n]}
    assert own == {}, "nothing is kept on the modules"


def test_the_tower_has_no_loose_buffers_of_its_own(tiny_tower):
    kept = tiny_tower.state_dict().keys()
    loose = [name for name, _ in tiny_tower.named_buffers() if name not in kept and not name.startswith("experts.")]
    assert loose == ["clip.embeddings.position_ids"]
    assert isinstance(tiny_tower.config.image_mean[0], float)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 16, 32), "square"),
        ((2, 3, 32, 32), r"\(B, 3, 16, 16\)"),
        ((2, 1, 16, 16), r"\(B, 3, 16, 16\)"),
        ((3, 16, 16), "one tensor"),
        ((2, 2, 3, 16, 16), "one tensor"),
    ],
)
def test_other_pixels_are_refused_with_a_reason(tiny_tower, shape, message):
    with pytest.raises(ValueError, match=message):
        tiny_tower(torch.zeros(shape))


def test_a_clip_with_another_number_of_tokens_is_refused(tiny_tower):
    tiny_tower.clip.config._attn_implementation = "sdpa"
    layers = tiny_tower.clip.encoder.layers
    layers[0].register_forward_hook(lambda m, a, out: out[:, :-1])
    with pytest.raises(ValueError, match="gave 15 patch tokens; expected 4 x 4"):
        tiny_tower(tiny_towers.pixels())


@pytest.mark.parametrize("asked", [None, True, False, -1, 1, [-1]])
def test_hidden_states_are_always_both(tiny_tower, asked):
    output = tiny_towers.wake(tiny_tower)(tiny_towers.pixels(), output_hidden_states=asked, return_dict=True)
    assert len(output.hidden_states) == 2 == tiny_tower.config.num_hidden_layers + 1
    assert output.hidden_states[-1] is output.last_hidden_state


def test_return_dict_false_gives_a_tuple(tiny_tower):
    output = tiny_tower(tiny_towers.pixels(), return_dict=False)
    assert isinstance(output, tuple)
    assert output[0].shape == (2, 16, 32)


def test_deepcopy_computes_the_same(tiny_tower):
    tower = tiny_towers.wake(tiny_tower)
    twin = copy.deepcopy(tower)
    assert torch.equal(twin(tiny_towers.pixels()).last_hidden_state, tower(tiny_towers.pixels()).last_hidden_state)


# ---- transformers ----


def test_registered_with_the_auto_classes(tiny_tower):
    fields = tiny_tower.config.to_dict()
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    assert type(config) is ToVEVisionConfig
    assert type(AutoModel.from_config(config)) is ToVEVisionModel


def test_attention_implementation_reaches_clip(tiny_tower):
    for implementation in ("eager", "sdpa"):
        tower = AutoModel.from_config(tiny_tower.config, attn_implementation=implementation)
        assert tower.clip.config._attn_implementation == implementation


def test_input_gradients_for_checkpointing_do_not_wake_the_frozen_parts(tiny_tower):
    tiny_tower.enable_input_require_grads()
    tiny_tower.train()
    training_step(tiny_tower)
    assert all(p.grad is None for p in frozen(tiny_tower).values())
