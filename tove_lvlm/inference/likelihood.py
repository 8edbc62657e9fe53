"""How likely a model finds each of some answers: the form of benchmarks that rank answers.

An answer's log-likelihood is the sum over its tokens and the `</s>` that ends it, after LLaVA's v1 prompt: the log of
the probability that the model answers exactly this. As each ends with `</s>`, these are probabilities of different
outcomes of one draw, and nothing is divided by the length. Shapes: R rows (question times answer), T tokens, K the last
columns, V vocabulary.

See docs/evaluation.md, "VSR".
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from ..data.conversations import IGNORE_INDEX, encode_v1, expand_image_tokens
from ..lvlm.parts import as_llava
from .batching import human_turn, model_inputs, pad_left


def encode_answer(
    processor, model: nn.Module, question: str, answer: str, has_image: bool
) -> tuple[list[int], list[int]]:
    """(ids, labels) of a question with its answer, the image's placeholders expanded; labels mark the answer."""
    talk = [human_turn(question, has_image), {"from": "gpt", "value": answer}]
    encoded = encode_v1(processor.tokenizer, talk, has_image)
    config = as_llava(model).config
    token, count = config.image_token_id, config.image_seq_length
    ids = expand_image_tokens(encoded.input_ids, encoded.input_ids, token, count)
    return ids, expand_image_tokens(encoded.labels, encoded.input_ids, IGNORE_INDEX, count)


class ScoredChoice(NamedTuple):
    """What a model thinks of one answer."""

    log_likelihood: float
    greedy: bool
    """Whether it is what greedy decoding says: each of its tokens is the likeliest one."""


def log_likelihoods(
    model: nn.Module,
    processor,
    questions: Sequence[str],
    answers: Sequence[Sequence[str]],
    pixels: Sequence[torch.Tensor | None],
) -> list[list[float]]:
    """Log-likelihood of each answer to each question, all in one batch.

    Args:
        model: A LLaVA model in eval mode.
        processor: Its LlavaProcessor.
        questions: Plain text.
        answers: For each question the answers to weigh.
        pixels: (3, H, W) for each question; None for one about no image.

    Returns:
        For each question one float for each of its answers; those of batch size 1 up to rounding.
    """
    scored = score_choices(model, processor, questions, answers, pixels)
    return [[choice.log_likelihood for choice in choices] for choices in scored]


@torch.inference_mode()
def score_choices(
    model: nn.Module,
    processor,
    questions: Sequence[str],
    answers: Sequence[Sequence[str]],
    pixels: Sequence[torch.Tensor | None],
) -> list[list[ScoredChoice]]:
    """As `log_likelihoods`, with whether greedy decoding would give the answer."""
    rows, repeated = [], []
    for question, choices, pixels_3HW in zip(questions, answers, pixels, strict=True):
        for answer in choices:
            rows.append(encode_answer(processor, model, question, answer, pixels_3HW is not None))
            repeated += [] if pixels_3HW is None else [pixels_3HW]
    ids_RT, mask_RT = pad_left([ids for ids, _ in rows], processor.tokenizer.pad_token_id)
    labels_RT, _ = pad_left([labels for _, labels in rows], IGNORE_INDEX)
    # Padding is on the left, so all answers end in the last column and only the last logits are needed.
    num = max(sum(label != IGNORE_INDEX for label in labels) for _, labels in rows)
    inputs = model_inputs(model, ids_RT, mask_RT, repeated)
    device = as_llava(model).device
    position_RT = (mask_RT.cumsum(1) - 1).clamp(min=0).to(device)
    logits_RKV = model(**inputs, position_ids=position_RT, logits_to_keep=num + 1, use_cache=False).logits
    labels_RK = labels_RT[:, -num:].to(device)
    labelled_RK = labels_RK != IGNORE_INDEX
    log_p_RKV = logits_RKV[:, :-1].float().log_softmax(-1)
    log_p_RK = log_p_RKV.gather(-1, labels_RK.where(labelled_RK, 0)[..., None])[..., 0]
    sums_R = log_p_RK.where(labelled_RK, 0.0).sum(1)
    greedy_R = ((log_p_RKV.argmax(-1) == labels_RK) | ~labelled_RK).all(1)
    scored = map(ScoredChoice, sums_R.tolist(), greedy_R.tolist())
    return [[next(scored) for _ in choices] for choices in answers]
