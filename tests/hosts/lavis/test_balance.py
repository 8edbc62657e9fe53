"""The balance loss in LAVIS's training: how much of it, when, and that nothing of it stays behind."""

import gc
import weakref

import pytest
import torch
from omegaconf import OmegaConf

from helpers import tiny_towers
from tove_lvlm.config import ConfigError
from tove_lvlm.config.encoder_decoder import TrainConfig
from tove_lvlm.hosts.lavis import balance, machine
from tove_lvlm.hosts.lavis.tower import ToVEVisualEncoder

GATE = "visual_encoder.tower.tove_fusion.gate.fc2.weight"
CAPTIONS = ["a red box", "a cone"]


def make(world, arch: str, **keys):
    """A model as LAVIS builds it from a YAML's `model` block, in training mode, with an awake tower."""
    from lavis.common.registry import registry

    block = {
        "vit_model": f"tove:{world.tower}",
        "image_size": tiny_towers.SIZE,
        "num_query_token": 4,
        "load_finetuned": False,
        "load_pretrained": False,
        "opt_model": str(world.out / "opt"),
        **keys,
    }
    torch.manual_seed(0)
    model = registry.get_model_class(arch).from_config(OmegaConf.create(block)).float()
    tower = tiny_towers.wake(model.visual_encoder.tower)
    with torch.no_grad():
        tower.tove_fusion.gate.fc2.bias[0] += 1.0  # one expert is favoured
    return model.train()


def step(model) -> tuple[torch.Tensor, torch.Tensor, dict]:
    """Loss of LAVIS's training step, the gate's gradient, and what the model gave."""
    from lavis.tasks.base_task import BaseTask

    given: dict = {}

    def call(samples):
        given.update(model(samples))
        return given

    torch.manual_seed(0)  # BLIP-2 draws its negatives, its BERT drops
    model.zero_grad()
    with machine.one_process():
        loss = BaseTask().train_step(call, {"image": tiny_towers.pixels(), "text_input": CAPTIONS})
        loss.backward()
    return loss.detach(), model.get_parameter(GATE).grad.clone(), given


def expected_balance(model) -> torch.Tensor:
    """CV^2 of the experts' mean gate mass for these images, from the probabilities."""
    mass_K = model.visual_encoder.tower(tiny_towers.pixels()).gate_probs.detach().mean((0, 1))
    return mass_K.var(correction=0) / mass_K.mean().square()


@pytest.mark.parametrize("arch", ["blip2", "blip2_opt"])
def test_a_training_step_has_weight_times_the_balance_loss(lavis, world, bert, arch):
    models = [make(world, arch, balance_loss_weight=weight) for weight in (0, 0.5)]
    (without, gate_without, plain), (loss, gate, given) = map(step, models)
    expected = expected_balance(models[1])
    assert expected > 0.001
    torch.testing.assert_close(loss - without, 0.5 * expected, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(given["loss_balance"], expected)
    assert not given["loss_balance"].requires_grad
    assert "loss_balance" not in plain
    # The gate's gradient has gained the balance loss's own, and no more.
    tower = models[1].visual_encoder.tower
    tower.zero_grad()
    (0.5 * tower(tiny_towers.pixels()).balance_loss).backward()
    own = tower.tove_fusion.gate.fc2.weight.grad
    assert own.abs().max() > 1e-5
    torch.testing.assert_close(gate - gate_without, own, rtol=1e-3, atol=1e-6)


def test_weight_of_a_block_that_does_not_say_one(lavis, world, bert):
    assert make(world, "blip2").visual_encoder.balance_loss_weight == 0.01
    assert TrainConfig.__dataclass_fields__["balance_loss_weight"].default == 0.01
    assert make(world, "blip2", balance_loss_weight=1).visual_encoder.balance_loss_weight == 1.0


@pytest.mark.parametrize("value", [-0.1, "much", None, True, float("nan")])
def test_a_weight_that_is_none(value):
    with pytest.raises(ConfigError, match=r"`model.balance_loss_weight` is .*; expected a number of at least 0"):
        balance.check_weight(value)


def test_evaluation_and_other_encoders_are_as_they_were(lavis, world, bert):
    model = make(world, "blip2_opt", balance_loss_weight=0.5)
    samples = {"image": tiny_towers.pixels(), "text_input": CAPTIONS}
    with torch.no_grad():
        training = model(samples)
        assert set(model.eval()(samples)) == set(training) == {"loss"}
    assert set(model(samples)) == {"loss"}, "evaluation mode with gradients"
    encoder = model.train().visual_encoder
    assert set(model(samples)) == {"loss", "loss_balance"}
    del model.visual_encoder
    model.visual_encoder = torch.nn.Sequential(encoder)  # as an encoder of LAVIS's own: not ours to look at
    assert set(model(samples)) == {"loss"}


def test_nothing_is_kept_after_a_step(lavis, world, bert):
    """Neither a hook nor the graph, also where the forward fails."""
    model = make(world, "blip2_opt", balance_loss_weight=0.5)
    tower = model.visual_encoder.tower
    samples = {"image": tiny_towers.pixels(), "text_input": CAPTIONS}
    seen = []
    handle = tower.register_forward_hook(lambda module, args, output: seen.append(weakref.ref(output.balance_loss)))
    output = model(samples)
    with pytest.raises(KeyError, match="text_input"):
        model({"image": tiny_towers.pixels()})
    handle.remove()
    assert not tower._forward_hooks
    del output
    gc.collect()
    assert [reference() for reference in seen] == [None, None]


@pytest.mark.parametrize("output", [None, torch.zeros(2), {"logits": 1}, {"loss": None}])
def test_an_output_without_a_loss_is_left_alone(output):
    before = output.copy() if isinstance(output, dict) else output
    balance.add_balance_loss(output, torch.tensor(1.0), 0.5)
    assert output is before or output == before


def test_the_encoder_alone_gives_tokens(tiny_tower):
    encoder = ToVEVisualEncoder(tiny_tower, source="x").train()
    assert encoder(tiny_towers.pixels()).shape == (2, 16, tiny_towers.WIDTH)
    assert encoder.balance_loss_weight == 0.01
