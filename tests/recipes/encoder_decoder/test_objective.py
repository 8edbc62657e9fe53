"""The objective's numbers: an image once for all its texts, label smoothing, both reductions, the balance loss."""

import pytest
import torch

from helpers.tiny_base import build_base
from helpers.tiny_decoders import make_decoder
from tove_lvlm.data.conversations import IGNORE_INDEX
from tove_lvlm.data.row_layout import model_inputs
from tove_lvlm.data.text_dataset import TextCollator, TextSample
from tove_lvlm.recipes.encoder_decoder.objective import TextObjective


def batch(trainer, size: int = 3) -> dict:
    return model_inputs(trainer.data_collator([trainer.train_dataset[i] for i in (0, 25, 48)[:size]]))


def plain_sum(model, inputs, smoothing: float) -> float:
    """Text after text, each with its image, by transformers' model and the definition of label smoothing."""
    total = 0.0
    names = ("input_ids", "attention_mask", "labels", "logits_to_keep", "image_of")
    for ids, mask, labels, places, image in zip(*(inputs[name] for name in names), strict=True):
        length = int(mask.sum())
        with torch.no_grad():
            logits = model(
                pixel_values=inputs["pixel_values"][image][None], decoder_input_ids=ids[None, :length]
            ).logits[0]
        log_p = logits.log_softmax(-1)
        for label, place in zip(labels, places, strict=True):
            if label != IGNORE_INDEX:
                assert label == ids[place + 1]
                total -= (1 - smoothing) * log_p[place, label].item() + smoothing * log_p[place].mean().item()
    return total


def test_the_sum_is_that_of_each_text_alone(make_base_trainer):
    trainer = make_base_trainer("pretrain_base")
    model = trainer.model.model.eval()
    inputs = batch(trainer)
    assert inputs["image_of"].tolist() == [0, 1, 1, 2], "a caption, two questions about one image, a statement"
    found = TextObjective(model, 0.1)(**inputs)
    assert found.num_texts == 4
    assert found.loss_sum.item() == pytest.approx(plain_sum(model, inputs, 0.1), rel=1e-4)


@pytest.mark.parametrize("reduction", ["mean_per_token", "sum_per_text"])
def test_the_trainers_loss(make_base_trainer, reduction):
    trainer = make_base_trainer(
        "pretrain_base", f"train.loss_reduction={reduction}", "train.balance_loss_weight=0.5", "train.label_smoothing=0"
    )
    trainer.current_gradient_accumulation_steps = 2
    trainer.model.eval()
    inputs = batch(trainer)
    num_labels = int((inputs["labels"] != IGNORE_INDEX).sum())
    loss, output, tower = trainer.loss_of(trainer.model, inputs, torch.tensor(2 * num_labels))
    text = plain_sum(trainer.model.model, inputs, 0.0) / (2 * num_labels if reduction == "mean_per_token" else 2 * 4)
    assert loss.item() == pytest.approx(text + 0.5 / 2 * tower.balance_loss.item(), rel=1e-4)
    assert tower.balance_loss.item() > 0
    assert tower.gate_probs.shape[0] == 3, "the gate's loss is of images, however many texts each has"


def test_padding_and_other_rows_change_nothing(tmp_path, tiny_tower_yaml):
    model, processor = build_base(make_decoder(tmp_path / "d"), tiny_tower_yaml)
    objective = TextObjective(model)
    pixels = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))

    def loss(texts):
        rows = [processor.answer_ids(processor.prompt_ids("what ?"), text) for text in texts]
        sample = TextSample(rows=rows, pixel_values=pixels[0], sample_id="")
        return objective(**model_inputs(TextCollator(pad_token_id=1)([sample]))).loss_sum.item()

    alone = loss(["red"]) + loss(["the blue box on the left"])
    assert loss(["red", "the blue box on the left"]) == pytest.approx(alone, rel=1e-5)
