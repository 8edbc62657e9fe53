"""Batches by hand, and what stock LLaVA of transformers makes of them."""

import dataclasses

import pytest
import torch

from tove_lvlm.data.collator import ToVECollator
from tove_lvlm.data.errors import DataError

SHAPE = (3, 16, 16)


@pytest.fixture
def collator(image_tokenizer):
    return ToVECollator(tokenizer=image_tokenizer, num_image_tokens=4, image_shape=SHAPE, model_max_length=12)


def make(ids, labels=None, pixels=None, name="x"):
    pixels = None if pixels is None else pixels.reshape(-1, *SHAPE)
    return {"input_ids": ids, "labels": labels or [-100] * len(ids), "pixel_values": pixels, "sample_id": name}


def test_mixed_batch_by_hand(collator):
    images = [torch.full(SHAPE, 1.0), torch.full(SHAPE, 2.0)]
    batch = collator(
        [
            make([1, -200, 7, 8], [-100, -100, -100, 8], images[0], "a"),
            make([1, 5], [-100, 5], None, "b"),
            make([1, 6, -200], None, images[1], "c"),
        ]
    )
    image = 32000
    assert batch["input_ids"].tolist() == [
        [1, image, image, image, image, 7, 8],
        [1, 5, 0, 0, 0, 0, 0],
        [1, 6, image, image, image, image, 0],
    ]
    assert batch["attention_mask"].tolist() == [[1] * 7, [1] * 2 + [0] * 5, [1] * 6 + [0]]
    assert batch["labels"].tolist() == [[-100] * 6 + [8], [-100, 5] + [-100] * 5, [-100] * 7]
    assert batch["pixel_values"].shape == (2, *SHAPE)
    assert torch.equal(batch["pixel_values"], torch.stack(images))
    assert batch["sample_ids"] == ["a", "b", "c"]
    assert {batch[key].dtype for key in ("input_ids", "attention_mask", "labels")} == {torch.int64}


def test_text_batch_has_one_dummy_image(collator):
    batch = collator([make([1, 5], [-100, 5]), make([1, 6, 7, 8], [-100, -100, 7, 8])])
    image = 32000
    assert batch["input_ids"].tolist() == [[1, 5, image, image, image, image], [1, 6, 7, 8, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 5, -100, -100, -100, -100], [-100, -100, 7, 8, -100, -100]]
    assert batch["pixel_values"].shape == (1, *SHAPE)
    assert not batch["pixel_values"].any()


def test_unknown_word_is_attended(collator):
    """LLaVA takes every <unk> for padding, its padding token being <unk>."""
    assert collator([make([1, 0, 5], [-100, 0, 5])])["attention_mask"][0, :3].tolist() == [1, 1, 1]


def test_context(collator):
    ids = [1, -200, *range(100, 120)]
    batch = collator([make(ids, ids[:1] + [-100] + ids[2:], torch.ones(SHAPE))])
    assert batch["input_ids"].shape == (1, 12)
    assert batch["input_ids"][0, -7:].tolist() == list(range(100, 107))
    assert batch["labels"][0, -7:].tolist() == list(range(100, 107))
    with pytest.raises(DataError, match="sample 'cut': 2 image tokens within the context of 12, expected 4"):
        collator([make([*range(10), -200], pixels=torch.ones(SHAPE), name="cut")])
    with pytest.raises(DataError, match="sample 'lost': 0 image tokens within the context of 12, expected 4"):
        collator([make([*range(10)], pixels=torch.ones(SHAPE), name="lost")])


def test_tokenizer_without_image_token():
    from helpers import llava_reference

    with pytest.raises(ValueError, match="the tokenizer has no token <image>; add it"):
        ToVECollator(
            tokenizer=llava_reference.current_tokenizer(), num_image_tokens=4, image_shape=SHAPE, model_max_length=12
        )


@pytest.fixture(scope="module")
def model():
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    text = LlamaConfig(
        vocab_size=32001,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.5,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=32000)
    return LlavaForConditionalGeneration(config)


def run(model, batch):
    return model(**{key: value for key, value in batch.items() if key != "sample_ids"})


def test_dummy_image_changes_no_logit_and_gets_no_gradient(model, collator):
    rows = [([1, 50, 60, 70], [-100, -100, 60, 70]), ([1, 80, 90, 11, 12, 13, 14], [-100, -100, 90, 11, 12, 13, 14])]
    batch = collator([make(ids, labels) for ids, labels in rows])
    model.zero_grad()
    output = run(model, batch)
    output.loss.backward()
    losses = []
    for row, (ids, labels) in enumerate(rows):
        alone = model(input_ids=torch.tensor([ids]))
        torch.testing.assert_close(output.logits[row, : len(ids)], alone.logits[0], rtol=0, atol=1e-5)
        losses.append(
            torch.nn.functional.cross_entropy(alone.logits[0, :-1], torch.tensor(labels[1:]), reduction="sum")
        )
    torch.testing.assert_close(output.loss, sum(losses) / 7)
    # The tower ran, so that every rank reduces the same gradients; they are exactly zero.
    tower = [parameter.grad for parameter in model.model.multi_modal_projector.parameters()]
    assert all(grad is not None and not grad.any() for grad in tower)
    assert model.lm_head.weight.grad.any()
    # Neither does the picture matter.
    other = run(model, batch | {"pixel_values": torch.randn(1, *SHAPE)})
    for row, (ids, _) in enumerate(rows):
        assert torch.equal(other.logits[row, : len(ids)], output.logits[row, : len(ids)])


def test_image_rows_do_see_their_own_image(model, collator):
    images = [torch.zeros(SHAPE), torch.ones(SHAPE)]
    rows = [make([1, -200, 5], pixels=images[0]), make([1, 6], None), make([1, 9, -200, 7], pixels=images[1])]
    logits = run(model, collator(rows)).logits
    alone = run(model, collator(rows[2:])).logits
    torch.testing.assert_close(logits[2, :7], alone[0], rtol=0, atol=1e-5)
    swapped = run(model, collator([rows[0], rows[1], rows[2] | {"pixel_values": images[0][None]}])).logits
    assert not torch.allclose(swapped[2, 6], logits[2, 6], atol=1e-3)
    torch.testing.assert_close(swapped[0], logits[0])


def test_several_images_of_a_row_stand_in_their_places(model, collator):
    """Features go in the order of the placeholders: of the row, then of the batch."""
    wide = dataclasses.replace(collator, model_max_length=30)
    images = torch.stack([torch.zeros(SHAPE), torch.ones(SHAPE), -torch.ones(SHAPE)])
    batch = wide([make([1, -200, 5, -200, 7], pixels=images[:2]), make([1, -200, 8], pixels=images[2])])
    assert torch.equal(batch["pixel_values"], images)
    assert batch["num_images"] == 3
    logits = run(model, batch).logits
    swapped = run(model, wide([make([1, -200, 5, -200, 7], pixels=images[[1, 0]])])).logits
    assert not torch.allclose(swapped[0, 5], logits[0, 5], atol=1e-3), "the first image is another one"
    first = run(model, wide([make([1, -200, 5], pixels=images[0])])).logits
    torch.testing.assert_close(logits[0, :6], first[0], rtol=0, atol=1e-5)
    with pytest.raises(DataError, match="8 image tokens within the context of 30, expected 4"):
        wide([make([1, -200, -200], pixels=images[0])])
