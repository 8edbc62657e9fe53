"""Rows behind each other give what padded rows give, and none sees another."""

import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from tove_lvlm.data.row_layout import Row, at_labels, concatenated, padded
from tove_lvlm.lvlm import padding_free
from tove_lvlm.lvlm.padding_free import KINDS, backend, padding_free_attention, problem

CPU = torch.device("cpu")
SIZES = {
    "vocab_size": 120,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.5,
    "pad_token_id": 0,
}
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "llama, scaled positions": LlamaConfig(
        **SIZES, max_position_embeddings=8, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    ),
    "mistral, window of 3": MistralConfig(**SIZES, head_dim=8, sliding_window=3),
    "qwen2": Qwen2Config(**SIZES),
    "qwen2, window of 3": Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=3, max_window_layers=1),
    "qwen3": Qwen3Config(**SIZES, head_dim=8),
}
IMAGE = 119


def make(config) -> LlavaForConditionalGeneration:
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
    )
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=config, image_token_index=IMAGE, vision_feature_layer=-1)
    )
    return model.train()


def rows() -> list[Row]:
    """Two rows with an image's 4 tokens and one of text."""
    generator = torch.Generator().manual_seed(1)
    parts = []
    for length, has_image in ((5, True), (11, False), (3, True)):
        ids = torch.randint(3, 100, (length,), generator=generator).tolist()
        image = [IMAGE] * 4 if has_image else []
        parts.append(Row([*ids[:2], *image, *ids[2:]], [-100, -100, *[-100] * len(image), *ids[2:]]))
    return parts


PIXELS = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def test_every_kind_is_tested():
    assert {config.model_type for config in CONFIGS.values()} == set(KINDS)


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_gradients_are_those_of_padded_rows(name):
    model = make(CONFIGS[name])
    one, side_by_side = concatenated(rows(), None), padded(rows(), None, 0)
    with padding_free_attention(model, backend(CONFIGS[name], CPU, torch.float32)):
        found = model(**one, pixel_values=PIXELS)
        found.loss.backward()
    gradients = {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    model.zero_grad()
    expected = model(**side_by_side, pixel_values=PIXELS, use_cache=False)
    expected.loss.backward()
    at = side_by_side["attention_mask"].bool()
    assert expected.logits[at].abs().max() > 1
    torch.testing.assert_close(found.logits[0], expected.logits[at], rtol=0, atol=1e-4)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-6, atol=0)
    assert len(gradients) > 20
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, model.get_parameter(name).grad, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_a_row_does_not_move_when_its_neighbour_changes(name):
    model = make(CONFIGS[name]).eval()
    parts = rows()
    changed = [Row([5, 4, *[IMAGE] * 4, 3], parts[0].labels[:7]), *parts[1:]]
    with padding_free_attention(model, backend(CONFIGS[name], CPU, torch.float32)):
        first, second = (model(**concatenated(some, None), pixel_values=PIXELS).logits[0] for some in (parts, changed))
    assert len(first) == len(second) + 2
    torch.testing.assert_close(second[7:], first[9:], rtol=0, atol=1e-6)
    assert (second[:7] - first[:7]).abs().max() > 0.1, "the changed row itself did move"


def test_stock_attention_does_mix_rows_where_a_cache_exists():
    """What the attention of our own avoids: transformers looks for several rows only where it makes no cache."""
    model, one = make(CONFIGS["llama"]), concatenated(rows(), None)
    expected = model(**padded(rows(), None, 0), pixel_values=PIXELS).loss
    mixed = model(**one, pixel_values=PIXELS, use_cache=True).loss
    assert abs(mixed - expected) > 0.01
    with padding_free_attention(model, "tove_rows"):
        for use_cache in (True, False):
            torch.testing.assert_close(model(**one, pixel_values=PIXELS, use_cache=use_cache).loss, expected)


@pytest.mark.parametrize("layout", ["padded", "concatenated"])
def test_the_loss_at_labels_is_the_loss(layout):
    model = make(CONFIGS["llama"])
    batch = padded(rows(), None, 0) if layout == "padded" else concatenated(rows(), None)
    name = "sdpa" if layout == "padded" else "tove_rows"
    with padding_free_attention(model, name):
        whole = model(**batch, pixel_values=PIXELS, use_cache=False, num_items_in_batch=torch.tensor(13))
        few = model(**at_labels(batch), pixel_values=PIXELS, use_cache=False, num_items_in_batch=torch.tensor(13))
    assert few.logits.numel() == {"padded": 3 * 9, "concatenated": 13}[layout] * 120 < whole.logits.numel()
    torch.testing.assert_close(few.loss, whole.loss, rtol=2e-7, atol=0)


def test_checkpointed_layers_see_the_same_rows():
    model, one = make(CONFIGS["llama"]), at_labels(concatenated(rows(), None))
    losses = []
    for checkpointing in (False, True):
        model.zero_grad()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        with padding_free_attention(model, "tove_rows"):
            loss = model(**one, pixel_values=PIXELS, use_cache=False).loss
            loss.backward()
        losses.append((loss.detach(), model.model.language_model.layers[0].self_attn.q_proj.weight.grad.clone()))
    assert torch.equal(losses[0][0], losses[1][0])
    assert torch.equal(losses[0][1], losses[1][1])


def test_the_model_attends_as_before_afterwards():
    model = make(CONFIGS["llama"])
    with padding_free_attention(model, "tove_rows"):
        assert model.model.language_model.config._attn_implementation == "tove_rows"
        assert model.model.vision_tower.config._attn_implementation == "sdpa", "pictures are no rows"
    assert model.model.language_model.config._attn_implementation == "sdpa"
    assert "tove_rows" not in str(model.config.to_dict())


def test_a_batch_that_does_not_say_where_rows_end_is_named():
    model = make(CONFIGS["llama"])
    with padding_free_attention(model, "tove_rows"), pytest.raises(ValueError, match="a batch of 3 x 11 tokens with"):
        model(**padded(rows(), None, 0), pixel_values=PIXELS)
    one = concatenated(rows(), None) | {"row_lengths": (4, 4)}
    with padding_free_attention(model, "tove_rows"), pytest.raises(ValueError, match=r"`row_lengths` \(4, 4\)"):
        model(**one, pixel_values=PIXELS)


def test_which_attention_runs(monkeypatch):
    config, cuda = CONFIGS["llama"], torch.device("cuda")
    assert backend(config, CPU, torch.bfloat16) == "tove_rows"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(padding_free.importlib.util, "find_spec", lambda name: None)
    assert backend(config, cuda, torch.bfloat16) == "tove_rows", "an older torch has no such kernel"
    monkeypatch.setattr(padding_free.importlib.util, "find_spec", lambda name: object())
    assert backend(config, cuda, torch.bfloat16) == "tove_varlen"
    assert backend(config, cuda, torch.float32) == "tove_rows", "the kernel is for half precision"
    dropping = LlamaConfig(**SIZES, attention_dropout=0.1)
    assert backend(dropping, cuda, torch.bfloat16) == "tove_rows", "and drops no weights"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert backend(config, cuda, torch.float16) == "tove_rows"
    assert problem(config) is None
    assert problem(CLIPVisionConfig()) == (
        "`clip_vision_model` is not known to keep rows apart (known are llama, mistral, qwen2, qwen3)"
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_on_a_cpu_half_precision_is_computed_in_float32_and_no_other(dtype):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, 30, 8, generator=generator).to(dtype) for _ in range(3))
    found, _ = padding_free.rows_attention(torch.nn.Identity(), query, key, value, None, row_lengths=(10, 20))
    computed = torch.float32 if dtype == torch.bfloat16 else dtype
    parts = [
        torch.nn.functional.scaled_dot_product_attention(
            *(x[:, :, a:b].to(computed) for x in (query, key, value)), is_causal=True
        )
        for a, b in ((0, 10), (10, 30))
    ]
    assert found.dtype == dtype
    assert torch.equal(found, torch.cat(parts, dim=2).transpose(1, 2).to(dtype))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("window", [None, 100])
def test_the_variable_length_kernel_is_the_rows(window):
    generator = torch.Generator("cuda").manual_seed(0)
    query, key, value = (
        torch.randn(1, heads, 400, 64, device="cuda", dtype=torch.bfloat16, generator=generator).requires_grad_()
        for heads in (8, 2, 2)
    )
    lengths = (250, 1, 149)
    ends = torch.tensor([0, 250, 251, 400], dtype=torch.int32, device="cuda")
    results = []
    for attention in (padding_free.rows_attention, padding_free.varlen_attention):
        output, _ = attention(
            None, query, key, value, None, scaling=0.125,
            row_lengths=lengths, sliding_window=window, cu_seq_lens_q=ends,
        )  # fmt: skip
        results.append((output, *torch.autograd.grad(output.float().square().sum(), (query, key, value))))
    for rows_result, kernel_result in zip(*results, strict=True):
        torch.testing.assert_close(kernel_result.float(), rows_result.float(), rtol=0.05, atol=0.05)
