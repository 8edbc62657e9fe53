"""The loss of chunks is the loss of all logits, and logits of all labels are never held."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from tove_lvlm.config import ConfigError
from tove_lvlm.lvlm.chunked_loss import chunked_loss, require_chunked_loss

can = pytest.mark.skipif(not hasattr(nn, "LinearCrossEntropyOptions"), reason="this torch has no chunked loss")
SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
NUM_WORDS = 5000


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = LlamaForCausalLM(LlamaConfig(vocab_size=NUM_WORDS, **SIZES))
    made.lm_head.requires_grad_(False)
    return made


IDS = torch.randint(0, NUM_WORDS, (2, 300), generator=torch.Generator().manual_seed(1))
LABELS = nn.functional.pad(IDS[:, 101:], (0, 1), value=-100)
"""Of the last 200 places."""


def step(model) -> tuple:
    """(outputs, gradient of a layer below, numbers of the largest tensor that was made)."""
    model.zero_grad()
    with Sizes() as sizes:
        outputs = model(
            input_ids=IDS,
            labels=LABELS,
            shift_labels=LABELS,
            logits_to_keep=200,
            use_cache=False,
            num_items_in_batch=torch.tensor(700),
        )
        outputs.loss.backward()
    return outputs, model.model.layers[0].mlp.down_proj.weight.grad.clone(), sizes.largest


class Sizes(TorchDispatchMode):
    """Looks at what every operation gives."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return result


@can
def test_loss_and_gradient_are_those_of_all_logits(model):
    expected, gradient, numbers = step(model)
    with chunked_loss(model, LABELS):
        found, gradient_of_chunks, numbers_of_chunks = step(model)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient_of_chunks, gradient, rtol=1e-4, atol=1e-8)
    assert found.logits.ndim == 0
    assert numbers == LABELS.numel() * NUM_WORDS
    assert numbers_of_chunks < numbers / 4


@can
def test_the_model_is_itself_again(model):
    with pytest.raises(RuntimeError, match="stop"), chunked_loss(model, LABELS):
        raise RuntimeError("stop")
    outputs, _, _ = step(model)
    assert outputs.logits.shape == (2, 200, NUM_WORDS)


def test_a_torch_without_it_is_named(monkeypatch):
    monkeypatch.delattr(nn, "LinearCrossEntropyOptions", raising=False)
    with pytest.raises(ConfigError, match=r"`train.chunked_loss`: torch .* has no chunked"):
        require_chunked_loss()
