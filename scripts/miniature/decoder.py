"""Stage `decoder`: a RoBERTa that reads a scene from 64 cells of words by cross-attention, for the base model.

It learns what it will be trained on later, `prompt answer </s>` row by row: questions, statements and captions, and
where a tower's tokens will be, its cross-attention sees the cells of the map language (`tove_lvlm.world.maplang`),
roughened as the mini Vicuna's are (`vicuna.roughen`). It never sees a picture.

Shapes: S scenes, R rows, N cells, T tokens, V map words, D width.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tove_lvlm.data.conversations import IGNORE_INDEX
from tove_lvlm.data.turns import FALSE, STATEMENT, TRUE
from tove_lvlm.world import language, maplang, scene

from .vicuna import VicunaConfig, choose, percent_by_family, roughen, schedule

log = logging.getLogger("miniature.decoder")

SPECIAL = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes and schedule; the defaults are the shipped model's."""

    width: int = 128
    intermediate: int = 256
    layers: int = 4
    heads: int = 4
    context: int = 128
    steps: int = 3000
    scenes: int = 20  # per step
    questions: int = 6  # of each scene
    statements: int = 6  # true or false of a relation is learnt last
    captions: int = 8  # per step, of other scenes
    micro: int = 120  # rows at a time, sorted by length
    lr: float = 1.5e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    warmup: float = 0.06
    rough: VicunaConfig = dataclasses.field(default_factory=VicunaConfig)
    seed: int = 0


class Row:
    """One text about one scene: ids and, at the same places, labels."""

    def __init__(self, of_scene: int, prompt: Sequence[int], answer: Sequence[int]):
        self.of_scene = of_scene
        self.ids = [*prompt, *answer]
        self.labels = [*[IGNORE_INDEX] * len(prompt), *answer]


class Texts:
    """Rows out of words; every distinct string is tokenised once."""

    def __init__(self, tokenizer: Any):
        self._tokenizer, self._known = tokenizer, dict[str, list[int]]()
        self.start, self.end = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.map_words = [self.ids(word)[0] for word in maplang.WORDS]

    def ids(self, text: str) -> list[int]:
        """Ids of a text, without start and end."""
        if text not in self._known:
            self._known[text] = self._tokenizer(text, add_special_tokens=False).input_ids
        return self._known[text]

    def row(self, of_scene: int, prompt: str, answer: str) -> Row:
        """As `PromptProcessor.answer_ids` makes it."""
        return Row(of_scene, [self.start, *self.ids(prompt)], [*self.ids(answer), self.end])


def make_tokenizer(context: int):
    """Whole words and punctuation, all of the world's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    splitter = pre_tokenizers.Whitespace()
    lines = [*language.corpus(), STATEMENT.format(statement=""), TRUE, FALSE, *maplang.WORDS, "A picture of"]
    words = sorted({word for line in lines for word, _ in splitter.pre_tokenize_str(line)})
    vocabulary = {word: index for index, word in enumerate([*SPECIAL.values(), *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL["unk_token"]))
    tokenizer.pre_tokenizer, tokenizer.decoder = splitter, decoders.WordPiece(prefix="##", cleanup=True)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=context, **SPECIAL)


def build_model(config: DecoderConfig, tokenizer: Any) -> nn.Module:
    """A stock RobertaForCausalLM with cross-attention and fresh weights."""
    from transformers import RobertaConfig, RobertaForCausalLM

    torch.manual_seed(config.seed)
    return RobertaForCausalLM(
        RobertaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=config.intermediate,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.context + tokenizer.pad_token_id + 1,
            type_vocab_size=1,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            initializer_range=config.width**-0.5,  # the library's .02 stalls at this width
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            is_decoder=True,
            add_cross_attention=True,
        )
    )


def cells(
    model: nn.Module, texts: Texts, weight_SNV: np.ndarray, config: DecoderConfig, generator: torch.Generator | None
) -> torch.Tensor:
    """What cross-attention sees, (S, N, D): sums of the words' embeddings, with noise and a scale where a generator is
    given.
    """
    cells_SND = torch.from_numpy(weight_SNV) @ model.get_input_embeddings().weight[texts.map_words]
    if generator is None:
        return cells_SND
    spread_D = cells_SND.detach().std(dim=(0, 1))
    level_S11 = config.rough.noise * torch.rand(len(cells_SND), 1, 1, generator=generator).square()
    noise_SND = torch.randn(cells_SND.shape, generator=generator) * spread_D * level_S11
    low, high = map(math.log, config.rough.scale)
    scale_S11 = torch.exp(low + (high - low) * torch.rand(len(cells_SND), 1, 1, generator=generator))
    return (cells_SND + noise_SND) * scale_S11


def read(model: nn.Module, rows: Sequence[Row], cells_SND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits at the labels, labels) of some rows."""
    length, pad = max(len(row.ids) for row in rows), model.config.pad_token_id
    ids_RT = torch.tensor([row.ids + [pad] * (length - len(row.ids)) for row in rows])
    labels_RT = torch.tensor([row.labels + [IGNORE_INDEX] * (length - len(row.labels)) for row in rows])[:, 1:]
    seen_RND = cells_SND[[row.of_scene for row in rows]]
    hidden_RTD = model.roberta(ids_RT, encoder_hidden_states=seen_RND, use_cache=False).last_hidden_state
    labelled_RT = labels_RT != IGNORE_INDEX
    return model.lm_head(hidden_RTD[:, :-1][labelled_RT]), labels_RT[labelled_RT]


def train(config: DecoderConfig, tokenizer: Any) -> tuple[nn.Module, dict]:
    """Train from scratch; deterministic by `config.seed` on one machine with one thread.

    Returns:
        The model (float32), and the record: sizes, seconds, loss and held-out accuracy by family.
    """
    texts = Texts(tokenizer)
    model = build_model(config, tokenizer)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
    )
    generator = torch.Generator().manual_seed(config.seed + 1)
    per_step = config.scenes + config.captions
    seeds = np.random.default_rng([config.seed, 5]).permutation(scene.split_seeds("train", config.steps * per_step))
    began, losses = time.monotonic(), []
    for step in range(config.steps):
        batch = scene.sample(seeds[step * per_step : (step + 1) * per_step])
        rng = np.random.default_rng([config.seed, 6, step])
        for group in optimizer.param_groups:
            group["lr"] = config.lr * schedule(step, config.steps, config.warmup)
        optimizer.zero_grad(set_to_none=True)
        few = step < config.rough.few_share * config.steps
        losses.append(_backward(model, texts, batch, config, rng, generator, few))
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 25 == 0 or step + 1 == config.steps:
            means = np.mean(losses[-25:], axis=0).tolist()
            log.info("step %d/%d: answers %.3f captions %.3f", step + 1, config.steps, *means)
    return model, {
        "config": dataclasses.asdict(config),
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_seconds": round(time.monotonic() - began, 1),
        "loss_last": dict(zip(("answers", "captions"), np.mean(losses[-25:], axis=0).round(4).tolist(), strict=True)),
        "heldout": evaluate(model, texts, config, num_scenes=400),
    }


def _backward(
    model: nn.Module,
    texts: Texts,
    batch: scene.Scenes,
    config: DecoderConfig,
    rng: np.random.Generator,
    generator: torch.Generator,
    few: bool,
) -> tuple[float, float]:
    """Adds the gradients of the mean loss over answers and over caption tokens."""
    weight_SNV = roughen(batch, config.rough, rng, few)
    answers: list[Row] = []
    for i in range(config.scenes):
        asked = choose(language.questions(batch, i, rng, per_family=6), 16)
        chosen = [asked[k] for k in rng.permutation(len(asked))[: config.questions]]
        answers += [texts.row(i, question.text, question.answer) for question in chosen]
        stated = language.statements(batch, i, rng, per_relation=3)
        for k in rng.permutation(len(stated))[: config.statements]:
            answers.append(statement_row(texts, i, stated[k]))
    others = range(config.scenes, len(batch))
    captions = [texts.row(i, "", language.captions(batch, i, rng)) for i in others]
    losses = []
    for rows in (answers, captions):
        # Cells have a graph of their own for each backward pass: they are made of the embeddings that learn.
        num_labels = sum(label != IGNORE_INDEX for row in rows for label in row.labels)
        mean = 0.0
        for part in _by_length(rows, config.micro):
            seen_SND = cells(model, texts, weight_SNV, config, generator)
            logits_MV, labels_M = read(model, part, seen_SND)
            loss = nn.functional.cross_entropy(logits_MV, labels_M, reduction="sum") / num_labels
            loss.backward()
            mean += loss.item()
        losses.append(mean)
    return losses[0], losses[1]


def statement_row(texts: Texts, of_scene: int, statement: language.Statement) -> Row:
    """A statement as `data.text_sources` puts it."""
    answer = TRUE if statement.label else FALSE
    return texts.row(of_scene, STATEMENT.format(statement=statement.text), answer)


def _by_length(rows: Sequence[Row], size: int) -> Iterable[list[Row]]:
    ordered = sorted(rows, key=lambda row: len(row.ids))
    return (ordered[lo : lo + size] for lo in range(0, len(ordered), size))


@torch.no_grad()
def evaluate(model: nn.Module, texts: Texts, config: DecoderConfig, num_scenes: int) -> dict:
    """Percent right by family on held-out scenes in words; an answer's first token is the likeliest.

    Args:
        model: The decoder.
        texts: Its words.
        config: Its sizes.
        num_scenes: How many scenes.

    Returns:
        {"accuracy": percent by family, `statement` among them, "n": texts by family}.
    """
    scenes, rng = scene.sample(scene.split_seeds("heldout", num_scenes)), np.random.default_rng(7)
    seen_SND = cells(model, texts, maplang.cells(scenes), config, None)
    items: list[tuple[str, Row]] = []
    for i in range(num_scenes):
        items += [(q.family, texts.row(i, q.text, q.answer)) for q in language.questions(scenes, i, rng)]
        items += [("statement", statement_row(texts, i, s)) for s in language.statements(scenes, i, rng)]
    hits: dict[str, list[bool]] = {}
    for lo in range(0, len(items), 256):
        part = items[lo : lo + 256]
        logits_MV, labels_M = read(model, [row for _, row in part], seen_SND)
        right, at = (logits_MV.argmax(-1) == labels_M).tolist(), 0
        for family, row in part:
            hits.setdefault(family, []).append(right[at])
            at += sum(label != IGNORE_INDEX for label in row.labels)
    return percent_by_family(hits)


def build(folder: Path, config: DecoderConfig | None = None) -> dict:
    """Tokenizer and model (float16) into `folder`: everything that the shipped `miniature/decoder` holds.

    Returns:
        The record for the build's training record.
    """
    config = config or DecoderConfig()
    tokenizer = make_tokenizer(config.context)
    tokenizer.save_pretrained(folder)
    model, record = train(config, tokenizer)
    model.eval().half().save_pretrained(folder)
    return record
