"""The gate against numbers worked out by hand."""

import math

import pytest
import torch

from tove_lvlm.tower.gate import Gate
from tove_lvlm.tower.init import init_weights


def by_hand(**kwargs) -> Gate:
    """Width 2, one hidden unit, three experts. LayerNorm of (x, y) with x > y is (1, -1) up to its epsilon."""
    gate = Gate(width=2, num_experts=3, hidden=1, **kwargs)
    with torch.no_grad():
        gate.fc1.weight.copy_(torch.tensor([[3.0, 1.0]]))  # 3 * 1 - 1 * 1 = 2
        gate.fc1.bias.fill_(-1.0)  # -> 1, gelu(1) = 0.8413447
        gate.fc2.weight.copy_(torch.tensor([[1.0], [2.0], [-1.0]]))
        gate.fc2.bias.copy_(torch.tensor([0.0, 0.5, 0.0]))
    return gate.eval()


GELU_1 = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
LOGITS = [GELU_1, 2 * GELU_1 + 0.5, -GELU_1]
TOKENS = torch.tensor([[[300.0, 100.0]]])  # far apart, so that LayerNorm's epsilon does not count


def softmax(logits: list[float]) -> list[float]:
    total = sum(math.exp(x) for x in logits)
    return [math.exp(x) / total for x in logits]


@pytest.mark.parametrize("temperature", [1.0, 0.5, 4.0])
def test_probabilities_by_hand(temperature):
    probs = by_hand(temperature=temperature)(TOKENS, [True] * 3).probs_BNK
    expected = softmax([x / temperature for x in LOGITS])
    torch.testing.assert_close(probs[0, 0], torch.tensor(expected), atol=1e-6, rtol=0)


def test_detached_are_exactly_zero_and_the_others_share():
    probs = by_hand()(TOKENS, [True, False, True]).probs_BNK[0, 0]
    left, right = softmax([LOGITS[0], LOGITS[2]])
    assert probs[1].item() == 0.0
    torch.testing.assert_close(probs[[0, 2]], torch.tensor([left, right]), atol=1e-6, rtol=0)


def test_all_detached_gives_zeros_and_no_nan_gradient():
    tokens = TOKENS.clone().requires_grad_(True)
    probs = by_hand()(tokens, [False] * 3).probs_BNK
    assert torch.equal(probs, torch.zeros(1, 1, 3))


def test_gradient_has_no_nan_with_a_detached_expert():
    gate = by_hand()
    gate(TOKENS, [True, False, True]).probs_BNK[..., 0].sum().backward()
    for parameter in gate.parameters():
        assert torch.isfinite(parameter.grad).all()
    assert gate.fc2.bias.grad[1].item() == 0.0
    assert gate.fc2.bias.grad[0].item() != 0.0


def test_noise_in_training_only():
    gate = by_hand(noise=1.0)
    calm = gate(TOKENS, [True] * 3).probs_BNK
    assert torch.equal(calm, gate(TOKENS, [True] * 3).probs_BNK)
    torch.testing.assert_close(calm[0, 0], torch.tensor(softmax(LOGITS)), atol=1e-6, rtol=0)
    gate.train()
    torch.manual_seed(0)
    noisy = [gate(TOKENS.expand(1, 500, 2), [True] * 3).probs_BNK for _ in range(2)]
    assert not torch.equal(*noisy)
    # Undo the soft-max: differences of logits carry noise of variance 2.
    spread = (noisy[0][..., 0].log() - noisy[0][..., 1].log()).std().item()
    assert spread == pytest.approx(math.sqrt(2), rel=0.15)


def test_expert_dropout_in_training_only_per_image():
    gate = by_hand(expert_dropout=0.5)
    batch = TOKENS.expand(4000, 3, 2)
    torch.manual_seed(0)
    assert (gate(batch, [True] * 3).probs_BNK > 0).all()
    gate.train()
    output = gate(batch, [True] * 3)
    alive = output.probs_BNK > 0
    assert torch.equal(alive, alive[:, :1].expand_as(alive)), "an image's tokens must agree on what is masked"
    torch.testing.assert_close(output.probs_BNK.sum(-1), torch.ones(4000, 3))
    # Each of 8 masks has 1/8; all three masked means none is: an expert lives in 5 of 8.
    torch.testing.assert_close(alive[:, 0].float().mean(0), torch.full((3,), 5 / 8), atol=0.03, rtol=0)
    assert (output.full_probs_BNK > 0).all(), "the balance loss sees the gate before dropout"


def test_expert_dropout_never_wakes_a_detached_expert():
    gate = by_hand(expert_dropout=0.9).train()
    torch.manual_seed(0)
    probs = gate(TOKENS.expand(500, 1, 2), [True, False, True]).probs_BNK
    assert (probs[..., 1] == 0).all()
    torch.testing.assert_close(probs.sum(-1), torch.ones(500, 1))


def test_probabilities_are_float32_in_a_bf16_gate():
    gate = by_hand().to(torch.bfloat16)
    probs = gate(TOKENS.to(torch.bfloat16), [True] * 3).probs_BNK
    assert probs.dtype == torch.float32
    assert probs.sum(-1).item() == pytest.approx(1.0, abs=1e-6)


# ---- controls: what is lost when the gate does not see its own token ----

PLACES = torch.randn(2, 16, 2, generator=torch.Generator().manual_seed(0)) * 100


def test_constant_gate_gives_every_token_the_same():
    probs = by_hand(gate="constant")(PLACES, [True] * 3).probs_BNK
    assert torch.equal(probs, probs[:1, :1].expand_as(probs))
    hidden = 0.5 * -1 * (1 + math.erf(-1 / math.sqrt(2)))  # nothing is read: the hidden layer's bias alone, -1
    expected = softmax([hidden, 2 * hidden + 0.5, -hidden])
    torch.testing.assert_close(probs[0, 0], torch.tensor(expected), atol=1e-6, rtol=0)


def test_shuffled_gate_weighs_a_token_by_another_place_of_its_image():
    gate, honest = by_hand(gate="shuffled"), by_hand()(PLACES, [True] * 3).probs_BNK
    found = gate(PLACES, [True] * 3).probs_BNK
    assert not torch.equal(found, honest)
    for image in range(2):
        torch.testing.assert_close(found[image].sort(0).values, honest[image].sort(0).values)
    assert torch.equal(found, gate(PLACES, [True] * 3).probs_BNK)  # the same order at every call
    torch.manual_seed(0)
    gate.train()
    assert not torch.equal(gate(PLACES, [True] * 3).probs_BNK, gate(PLACES, [True] * 3).probs_BNK)


# ---- what the gate reads ----


def test_a_gate_that_reads_the_image_weighs_all_of_its_tokens_alike():
    gate = Gate(width=4, num_experts=3, hidden=5, gate="image").eval()
    tokens = torch.randn(2, 6, 4)
    probs = gate(tokens, [True] * 3).probs_BNK
    expected = Gate.forward(token_gate_like(gate), tokens.mean(1, keepdim=True), [True] * 3).probs_BNK
    torch.testing.assert_close(probs, expected.expand(2, 6, 3))
    assert not torch.allclose(probs[0], probs[1])


def token_gate_like(gate: Gate) -> Gate:
    """A `token` gate with the weights of another."""
    other = Gate(width=4, num_experts=3, hidden=5).eval()
    other.load_state_dict({key: value for key, value in gate.state_dict().items() if "expert" not in key})
    return other


@torch.no_grad()
def test_a_gate_that_reads_the_experts_too_by_hand():
    gate = Gate(width=4, num_experts=3, hidden=5, gate="token_and_expert").eval()
    tokens, e = torch.randn(2, 6, 4), list(torch.randn(3, 2, 6, 4))
    init_weights(gate.fc_expert)
    expected = token_gate_like(gate)(tokens, [True] * 3).probs_BNK
    assert torch.equal(gate(tokens, [True] * 3, e).probs_BNK, expected), "at its start it reads CLIP's token alone"
    gate.fc_expert.weight.normal_(generator=torch.Generator().manual_seed(0))
    logits = []
    for k in range(3):
        hidden = gate.fc1(gate.norm(tokens)) + gate.norm_expert(e[k]) @ gate.fc_expert.weight.T
        logits.append(torch.nn.functional.gelu(hidden) @ gate.fc2.weight[k] + gate.fc2.bias[k])
    torch.testing.assert_close(gate(tokens, [True] * 3, e).probs_BNK, torch.stack(logits, -1).softmax(-1))
    without = gate(tokens, [True, False, True], [e[0], None, e[2]]).probs_BNK
    pair = torch.stack([logits[0], logits[2]], -1).softmax(-1)
    torch.testing.assert_close(without[..., [0, 2]], pair)
    assert without[..., 1].eq(0).all()


def test_reading_the_experts_trains_the_gate_and_not_the_transfers():
    gate = Gate(width=4, num_experts=2, hidden=5, gate="token_and_expert")
    e = [torch.randn(1, 6, 4, requires_grad=True) for _ in range(2)]
    gate(torch.randn(1, 6, 4), [True] * 2, e).probs_BNK[..., 0].sum().backward()
    assert gate.fc_expert.weight.grad.abs().sum() > 0
    assert all(one.grad is None for one in e)
