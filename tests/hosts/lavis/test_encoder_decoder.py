"""The base model under LAVIS's interface: the loss of our own training, what learns, what is generated and ranked."""

import pytest
import torch
from omegaconf import OmegaConf

from helpers import tiny_towers
from helpers.base_runs import base_world, make_base_trainer, shared_base_world, train_base
from tove_lvlm.config import UserError
from tove_lvlm.data.conversations import IGNORE_INDEX
from tove_lvlm.data.errors import DataError
from tove_lvlm.data.row_layout import model_inputs
from tove_lvlm.hosts.lavis.encoder_decoder import ToVEEncoderDecoder
from tove_lvlm.hosts.lavis.model_block import ModelBlock

__all__ = ["base_world", "make_base_trainer", "shared_base_world", "train_base"]

QUESTIONS = ["What color is the cone?", "Is there a red object?"]
ANSWERS = ["red", "blue", "yes", "no", "the red object is in front of the blue object"]


@pytest.fixture
def make(lavis, world):
    """`make(arch, **keys)`: a model as LAVIS builds it from a `model` block, of the miniature's trained decoder and a
    tiny tower that it has never seen, the layer between them random.
    """
    from lavis.common.registry import registry

    def build(arch: str = "tove_caption", **keys):
        block = {"vit_model": f"tove:{world.tower}", "decoder": "shipped:miniature/decoder", "label_smoothing": 0.0}
        made = registry.get_model_class(arch).from_config(OmegaConf.create({"arch": arch, **block, **keys}))
        weight = made.model.enc_to_dec_proj.weight
        with torch.no_grad():
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * 0.01)
            tiny_towers.wake(made.model.encoder).tove_fusion.gate.fc2.bias[0] += 1.0
        return made.eval()

    return build


def log_p(made, image: torch.Tensor, question: str, answer: str) -> float:
    """Of an answer and the end, token after token by transformers' model."""
    row = made.processor.answer_ids(made.processor.prompt_ids(question), answer)
    with torch.no_grad():
        logits = made.model(pixel_values=image[None], decoder_input_ids=torch.tensor([row.input_ids])).logits[0]
    places = [place for place, label in enumerate(row.labels) if label != IGNORE_INDEX]
    return sum(logits[place - 1].log_softmax(-1)[row.labels[place]].item() for place in places)


def test_one_class_under_both_names(lavis):
    from lavis.common.registry import registry
    from lavis.models import BaseModel

    cls = registry.get_model_class("tove_caption")
    assert registry.get_model_class("tove_vqa") is cls
    assert issubclass(cls, BaseModel)
    assert issubclass(cls, ToVEEncoderDecoder)
    assert set(cls.PRETRAINED_MODEL_CONFIG_DICT) == {"miniature", "base", "large"}


@pytest.mark.parametrize(
    ("kind", "reduction"),
    [
        ("captions", "mean_per_token"),
        ("questions", "sum_per_text"),
        pytest.param("captions", "sum_per_text", marks=pytest.mark.full),
        pytest.param("questions", "mean_per_token", marks=pytest.mark.full),
    ],
)
def test_the_loss_is_that_of_our_own_trainer(make_base_trainer, reduction, kind):
    """The same model, images and texts through `scripts/pretrain_base.py`'s trainer and through LAVIS's interface."""
    options = [f"train.loss_reduction={reduction}", "train.balance_loss_weight=0.5", "train.label_smoothing=0.1"]
    trainer = make_base_trainer("pretrain_base", *options)
    trainer.current_gradient_accumulation_steps = 1
    objective = trainer.model.eval()
    samples = [trainer.train_dataset[i] for i in ((0, 1, 2) if kind == "captions" else (48, 50))]
    inputs = model_inputs(trainer.data_collator(samples))
    num_labels = (inputs["labels"] != IGNORE_INDEX).sum()
    with torch.no_grad():
        tiny_towers.wake(objective.model.encoder).tove_fusion.gate.fc2.bias[0] += 1.0
    ours, _, _ = trainer.loss_of(objective, inputs, num_labels)

    processor = trainer.train_dataset.sources[0].encoder
    asked, said = [], []
    for ids, labels, places in zip(inputs["input_ids"], inputs["labels"], inputs["logits_to_keep"], strict=True):
        start = int(places[0]) + 1
        asked.append(processor.tokenizer.decode(ids[1:start]))
        said.append(processor.tokenizer.decode(labels[labels != IGNORE_INDEX], skip_special_tokens=True))
    samples = {"image": inputs["pixel_values"], "text_input": said}
    if kind == "questions":
        assert all(asked)
        samples |= {"text_input": asked, "answer": said}
    block = ModelBlock(vit_model="", decoder="", loss_reduction=reduction, balance_loss_weight=0.5, label_smoothing=0.1)
    made = ToVEEncoderDecoder(objective.model, processor, block).train()
    made.model.eval()  # no dropout
    given = made(samples)
    assert set(given) == {"loss", "loss_lm", "loss_balance"}
    assert given["loss_balance"] > 0.01
    assert given["loss"].item() == pytest.approx(ours.item(), rel=1e-5)
    torch.testing.assert_close(given["loss"], given["loss_lm"] + 0.5 * given["loss_balance"])


def test_lavis_weighs_answers(make):
    """BLIP's loss for VQA: an answer counts as many annotators as gave it, and all are divided by the questions."""
    made = make("tove_vqa", loss_reduction="sum_per_text")
    images, answers, weights = tiny_towers.pixels(), ["red", "blue", "no red"], [0.7, 0.3, 1.0]
    asked = [0, 0, 1]
    samples = {"image": images, "text_input": QUESTIONS, "answer": answers, "weight": torch.tensor(weights)}
    samples["n_answers"] = torch.tensor([2, 1])
    each = [-log_p(made, images[i], QUESTIONS[i], answer) for i, answer in zip(asked, answers, strict=True)]
    summed = sum(weight * loss for weight, loss in zip(weights, each, strict=True))
    with torch.no_grad():
        assert made(samples)["loss"].item() == pytest.approx(summed / 2, rel=1e-4)
        made = make("tove_vqa")
        lengths = [2, 2, 3]  # words and the end
        labels = sum(weight * length for weight, length in zip(weights, lengths, strict=True))
        assert made(samples)["loss"].item() == pytest.approx(summed / labels, rel=1e-4)
    with pytest.raises(DataError, match=r"2 questions with \[2, 2\] answers, and 3 answers given"):
        made({**samples, "n_answers": torch.tensor([2, 2])})


def test_evaluation_has_no_balance_loss(make):
    samples = {"image": tiny_towers.pixels(), "text_input": ["red box", "blue"]}
    made = make()
    assert set(made(samples)) == {"loss", "loss_lm"}
    assert set(make(balance_loss_weight=0).train()(samples)) == {"loss", "loss_lm"}
    with torch.no_grad():
        assert set(made.train()(samples)) == {"loss", "loss_lm"}


@pytest.mark.parametrize(
    "plan",
    [
        "fusion_and_cross_attention",
        pytest.param("language_model", marks=pytest.mark.full),
        pytest.param("all_but_backbones", marks=pytest.mark.full),
    ],
)
def test_what_learns(make, plan):
    """By the plan's name, and all of it gets a gradient, as LAVIS's DistributedDataParallel asks."""
    made = make(trainable=plan, detached=["cnn"] if plan == "all_but_backbones" else []).train()
    made({"image": tiny_towers.pixels(), "text_input": ["red box", "blue"]})["loss"].backward()
    learning = {name for name, parameter in made.named_parameters() if parameter.requires_grad}
    assert {name for name, parameter in made.named_parameters() if parameter.grad is not None} == learning
    fusion = {name for name in learning if name.startswith("model.encoder.")}
    assert all(name.startswith("model.encoder.tove_fusion.") for name in fusion)
    assert bool(fusion) == (plan != "language_model")
    words = "model.decoder.roberta.embeddings.word_embeddings.weight"
    assert (words in learning) == (plan != "fusion_and_cross_attention")
    assert any("crossattention" in name for name in learning)


# ---- asking ----


def test_captions_are_what_transformers_generates(make):
    made, images = make(prompt="the"), tiny_towers.pixels(3)
    samples = {"image": images, "text_input": ["not looked at"] * 3}
    given = made.generate(samples, use_nucleus_sampling=False, num_beams=3, max_length=6, min_length=4)
    ids = torch.tensor([made.processor.prompt_ids("the")] * 3)
    settings = {"num_beams": 3, "max_new_tokens": 6, "min_new_tokens": 4, "do_sample": False}
    tokens = made.model.generate(pixel_values=images, decoder_input_ids=ids, **settings)
    assert given == made.processor.tokenizer.batch_decode(tokens[:, ids.shape[1] :], skip_special_tokens=True)
    assert all(4 <= len(made.processor.tokenizer(text).input_ids) <= 6 for text in given)
    other = made.generate(
        {**samples, "prompt": ["How many objects are there?", "Describe the scene.", "the"]},
        num_beams=3,
        max_length=6,
        min_length=4,
    )
    assert other[2] == given[2]
    assert other[:2] != given[:2]


def test_captions_that_are_drawn(make):
    made, samples = make(), {"image": tiny_towers.pixels()}

    def draw():
        return made.generate(samples, use_nucleus_sampling=True, num_captions=3, top_p=0.95, max_length=8, min_length=6)

    torch.manual_seed(0)
    first, second = draw(), draw()
    assert len(first) == 6
    assert len(set(first)) > 3
    assert first != second
    torch.manual_seed(0)
    assert draw() == first
    with pytest.raises(UserError, match=r"`num_captions` is 2; without `use_nucleus_sampling` all would be the same"):
        made.generate(samples, num_captions=2)


def test_answers_are_generated(make):
    """Questions of different lengths in one batch, each as alone."""
    made, images = make("tove_vqa"), tiny_towers.pixels()
    asked = {"num_beams": 2, "inference_method": "generate", "max_len": 5, "min_len": 3, "answer_list": None}
    both = made.predict_answers({"image": images, "text_input": QUESTIONS}, **asked, num_ans_candidates=128, prompt="")
    alone = [
        made.predict_answers({"image": image[None], "text_input": question}, **asked)[0]
        for image, question in zip(images, QUESTIONS, strict=True)
    ]
    assert both == alone
    assert both[0] != both[1]
    framed = made.predict_answers({"image": images, "text_input": QUESTIONS}, **asked, prompt="what {}")
    written = [f"what {question}" for question in QUESTIONS]
    assert framed == made.predict_answers({"image": images, "text_input": written}, **asked)


@pytest.mark.parametrize("num_candidates", [1, pytest.param(3, marks=pytest.mark.full), 128])
def test_answers_are_ranked(make, num_candidates):
    """As LAVIS's own models: of the answers with the likeliest first tokens the likeliest as a whole."""
    made, images = make("tove_vqa"), tiny_towers.pixels()
    samples = {"image": images, "text_input": QUESTIONS}
    best = made.predict_answers(samples, answer_list=ANSWERS, num_ans_candidates=num_candidates)
    for image, question, found in zip(images, QUESTIONS, best, strict=True):
        ids = torch.tensor([made.processor.prompt_ids(question)])
        with torch.no_grad():
            first_V = made.model(pixel_values=image[None], decoder_input_ids=ids).logits[0, -1]
        first = {answer: first_V[made.processor.tokenizer(answer).input_ids[0]].item() for answer in ANSWERS}
        some = sorted(ANSWERS, key=first.__getitem__, reverse=True)[:num_candidates]
        assert found == max(some, key=lambda answer: log_p(made, image, question, answer))


def test_answers_that_cannot_be_chosen(make):
    samples = {"image": tiny_towers.pixels(), "text_input": QUESTIONS}
    with pytest.raises(UserError, match="`inference_method: rank` chooses from a list and the data set has none"):
        make().predict_answers(samples)
    with pytest.raises(UserError, match="`inference_method` is `beam`; valid: rank, generate"):
        make().predict_answers(samples, inference_method="beam")
