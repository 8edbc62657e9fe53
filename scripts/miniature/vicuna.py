"""Stage `vicuna`: a stock Llama that learns to read a scene from 64 cells of words.

It sees the very prompts it will meet later: LLaVA's v1 template with packed questions, and the plain template with a
caption; where the image goes stand 64 cells of the map language (`tove_lvlm.world.maplang`), at ordinary positions.
Loss on answers and captions only. The cells are roughened (soft borders, noise, lost cells, any scale), so that visual
tokens that only come close to the words are read as well. A model of this size trained on ordinary text about scenes
learns words and no places: it would hide the tower.

Shapes: B sequences, N cells, P prefix, T tokens, V map words, D width.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tove_lvlm.data.conversations import IGNORE_INDEX
from tove_lvlm.world import language, maplang, scene

from . import tokenizer as tokenizers

log = logging.getLogger("miniature.vicuna")

_CONTENT = maplang.WORDS.index(maplang.ROW_WORDS[0])  # map words before this one say what is in a cell, the rest where


@dataclasses.dataclass(frozen=True, kw_only=True)
class VicunaConfig:
    """Sizes and schedule; the defaults are the shipped model's."""

    width: int = 128
    intermediate: int = 352
    layers: int = 4
    heads: int = 4
    rope_theta: float = 10000.0
    context: int = 2048
    steps: int = 1600
    scenes: int = 24  # per step, each with up to `questions` packed questions
    questions: int = 16
    captions: int = 6  # per step, of other scenes
    micro: int = 12  # sequences at a time, sorted by length: less padding, and activations that fit the caches
    lr: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    warmup: float = 0.06
    few_share: float = 0.75  # so much of the training sees `few_cells` of the 64 and no system prompt: it is faster
    few_cells: int = 24
    noise: float = 0.5  # largest standard deviation of the noise, in spreads of the cells' embeddings
    lost: float = 0.08  # largest share of cells that lose their content
    scale: tuple[float, float] = (0.7, 1.4)
    seed: int = 0


class Prompts:
    """Token ids of LLaVA's two templates around the cells. Every distinct string is tokenised once."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}
        self.eos = tokenizer.eos_token_id
        self.plain_prefix = [tokenizer.bos_token_id]
        self.v1_prefix = self.plain_prefix + self.ids(f"{tokenizers.SYSTEM} USER: ")
        self.bare_prefix = self.plain_prefix + self.ids("USER: ")
        self.map_words = [self._piece(word) for word in maplang.WORDS]
        self._next_user = tokenizer("</s>USER:").input_ids[2:]

    def ids(self, text: str) -> list[int]:
        """Ids of `text` without <s>."""
        if text not in self._known:
            self._known[text] = self._tokenizer(text).input_ids[1:]
        return self._known[text]

    def question(self, text: str) -> list[int]:
        """What stands between the image and the answer of a first turn."""
        return self.ids(f"\n{text}") + self.ids("ASSISTANT:")

    def conversation(self, questions: Sequence[language.Question]) -> tuple[list[int], list[int]]:
        """Ids and labels after the image of a whole conversation."""
        ids: list[int] = []
        labels: list[int] = []
        for item in questions:
            prompt_ids = (
                self._next_user + self.ids(item.text) + self.ids("ASSISTANT:") if ids else self.question(item.text)
            )
            answer = [*self.ids(item.answer), self.eos]
            ids += prompt_ids + answer
            labels += [IGNORE_INDEX] * len(prompt_ids) + answer
        return ids, labels

    def caption(self, text: str) -> tuple[list[int], list[int]]:
        """Ids and labels after the image of a caption."""
        ids = self.ids(f"{text}\n")
        return ids, list(ids)

    def _piece(self, word: str) -> int:
        ids = self.ids(word)
        if len(ids) != 1:
            raise ValueError(f"the tokenizer cuts `{word}` into {len(ids)} pieces; every word of the world must be one")
        return ids[0]


def roughen(scenes: scene.Scenes, config: VicunaConfig, rng: np.random.Generator, few: bool = False) -> np.ndarray:
    """Maps as training shows them: borders between hard and soft, some cells without content.

    Args:
        scenes: B scenes.
        config: How rough.
        rng: Where from.
        few: Leave out all but `few_cells` cells of each, empty ones first.

    Returns:
        weight_BNV: weights on the map words.
    """
    soft_BNO = maplang.cover(scenes)
    mix = rng.choice(np.array([0.0, 0.5, 1.0], np.float32), size=(len(scenes), 1, 1))
    weight_BNV = maplang.cells(scenes, soft_BNO * mix + maplang.harden(soft_BNO) * (1 - mix))
    row, slot = np.nonzero(scenes.valid)
    best = soft_BNO.argmax(axis=1)[row, slot]
    lost_BN = rng.random(weight_BNV.shape[:2]) < config.lost * rng.random((len(scenes), 1))
    lost_BN[row, best] = False
    weight_BNV[..., :_CONTENT] *= ~lost_BN[..., None]
    if not few:
        return weight_BNV
    rank_BN = rng.random(weight_BNV.shape[:2]) + soft_BNO.sum(axis=-1).clip(0, 0.1) * 20.0
    rank_BN[row, best] = 4.0
    kept_BN = np.sort(np.argsort(-rank_BN, axis=1)[:, : config.few_cells], axis=1)
    return np.take_along_axis(weight_BNV, kept_BN[..., None], axis=1)


def embed_sequences(
    model: nn.Module,
    prompts: Prompts,
    prefix: list[int],
    weight_BNV: torch.Tensor,
    suffixes: list[list[int]],
    noise: float = 0.0,
    scale_B: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Input embeddings (B, P + N + T, D): the prefix, the cells, the suffixes padded on the right."""
    embed, num, length = model.get_input_embeddings(), len(suffixes), max(map(len, suffixes))
    ids_BT = torch.tensor([suffix + [0] * (length - len(suffix)) for suffix in suffixes])
    cells_BND = weight_BNV @ embed.weight[prompts.map_words]
    if noise:
        spread_D = cells_BND.detach().std(dim=(0, 1))
        level_B11 = noise * torch.rand(num, 1, 1, generator=generator).square()
        cells_BND = cells_BND + torch.randn(cells_BND.shape, generator=generator) * spread_D * level_B11
    if scale_B is not None:
        cells_BND = cells_BND * scale_B[:, None, None]
    prefix_BPD = embed(torch.tensor(prefix)).expand(num, -1, -1)
    return torch.cat([prefix_BPD, cells_BND, embed(ids_BT)], dim=1)


def answer_loss(model: nn.Module, inputs_BTD: torch.Tensor, labels: list[list[int]]) -> torch.Tensor:
    """Summed cross entropy over the labels that are not ignored; the longest row of labels ends with the inputs."""
    hidden_BTD = model.model(inputs_embeds=inputs_BTD, use_cache=False).last_hidden_state
    start = inputs_BTD.shape[1] - max(map(len, labels))
    targets = [(b, start + t - 1, label) for b, row in enumerate(labels) for t, label in enumerate(row)]
    rows, positions, words = map(torch.tensor, zip(*(w for w in targets if w[2] != IGNORE_INDEX), strict=True))
    return nn.functional.cross_entropy(model.lm_head(hidden_BTD[rows, positions]), words, reduction="sum")


def build_model(config: VicunaConfig, num_words: int) -> nn.Module:
    """A stock LlamaForCausalLM with fresh weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(config.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=num_words,
            hidden_size=config.width,
            intermediate_size=config.intermediate,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.context,
            initializer_range=config.width**-0.5,  # the library's .02 stalls at this width
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            pad_token_id=0,
        )
    )


def train(config: VicunaConfig, tokenizer: Any, evaluate_every: int = 0) -> tuple[nn.Module, dict]:
    """Train from scratch; deterministic by `config.seed` on one machine with one thread.

    Returns:
        The model (float32), and the record: sizes, seconds, loss and held-out text-only accuracy by family.
    """
    prompts = Prompts(tokenizer)
    model = build_model(config, len(tokenizer))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
    )
    generator = torch.Generator().manual_seed(config.seed + 1)
    per_step = config.scenes + config.captions
    seeds = np.random.default_rng([config.seed, 0]).permutation(scene.split_seeds("train", config.steps * per_step))
    began, losses, curve = time.monotonic(), [], []
    for step in range(config.steps):
        batch = scene.sample(seeds[step * per_step : (step + 1) * per_step])
        rng = np.random.default_rng([config.seed, 1, step])
        for group in optimizer.param_groups:
            group["lr"] = config.lr * schedule(step, config.steps, config.warmup)
        optimizer.zero_grad(set_to_none=True)
        losses.append(_backward(model, prompts, batch, config, rng, generator, step < config.few_share * config.steps))
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 25 == 0 or step + 1 == config.steps:
            log.info(
                "step %d/%d: answers %.3f captions %.3f",
                step + 1,
                config.steps,
                *np.mean(losses[-25:], axis=0).tolist(),
            )
        if evaluate_every and (step + 1) % evaluate_every == 0:
            curve.append({"step": step + 1, **evaluate(model, prompts, num_scenes=150)["accuracy"]})
            log.info("%s", curve[-1])
    seconds = round(time.monotonic() - began, 1)
    return model, {
        "config": dataclasses.asdict(config),
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_seconds": seconds,
        "loss_last": dict(zip(("answers", "captions"), np.mean(losses[-25:], axis=0).round(4).tolist(), strict=True)),
        **({"curve": curve} if curve else {}),
        "heldout": evaluate(model, prompts, num_scenes=500),
        "heldout_rough": evaluate(model, prompts, num_scenes=500, rough=config),
    }


def choose(questions: list[language.Question], most: int) -> list[language.Question]:
    """At most `most` questions, in their order: one of each family, more of those that are learnt late."""
    left = {family: 4 if family.startswith("rel_") else 2 if family == "color" else 1 for family in language.FAMILIES}
    chosen = []
    for question in questions:
        if left[question.family]:
            left[question.family] -= 1
            chosen.append(question)
    return chosen[:most]


def _backward(
    model: nn.Module,
    prompts: Prompts,
    batch: scene.Scenes,
    config: VicunaConfig,
    rng: np.random.Generator,
    generator: torch.Generator,
    few: bool,
) -> tuple[float, float]:
    """Adds the gradients of the mean loss over answers (v1 template) and over caption tokens (plain template)."""
    weight_BNV = torch.from_numpy(roughen(batch, config, rng, few))
    low, high = map(math.log, config.scale)
    scale_B = torch.exp(low + (high - low) * torch.rand(len(batch), generator=generator))
    question_rows, map_rows = range(config.scenes), range(config.scenes, len(batch))
    questions = [choose(language.questions(batch, i, rng, per_family=6), config.questions) for i in question_rows]
    captions = [language.captions(batch, i, rng) for i in map_rows]
    prefix = prompts.bare_prefix if few else prompts.v1_prefix
    parts = (
        (prefix, question_rows, [prompts.conversation(items) for items in questions]),
        (prompts.plain_prefix, map_rows, [prompts.caption(text) for text in captions]),
    )
    losses = []
    for start, rows, texts in parts:
        num_labels = sum(label != IGNORE_INDEX for _, labels in texts for label in labels)
        order = sorted(range(len(texts)), key=lambda k: len(texts[k][0]))
        mean = 0.0
        for lo in range(0, len(order), config.micro):
            picked = order[lo : lo + config.micro]
            at = [rows[k] for k in picked]
            inputs_BTD = embed_sequences(
                model,
                prompts,
                start,
                weight_BNV[at],
                [texts[k][0] for k in picked],
                config.noise,
                scale_B[at],
                generator,
            )
            loss = answer_loss(model, inputs_BTD, [texts[k][1] for k in picked]) / num_labels
            loss.backward()
            mean += loss.item()
        losses.append(mean)
    return losses[0], losses[1]


def schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate: linear warm-up, then cosine to zero."""
    ramp = max(1.0, warmup * steps)
    if step < ramp:
        return (step + 1) / ramp
    return 0.5 * (1 + math.cos(math.pi * (step - ramp) / max(1.0, steps - ramp)))


@torch.no_grad()
def evaluate(model: nn.Module, prompts: Prompts, num_scenes: int, rough: VicunaConfig | None = None) -> dict:
    """Accuracy by family on held-out scenes in words: one question per v1 prompt, the likeliest token is the answer.

    Args:
        model: The language model.
        prompts: Its prompts.
        num_scenes: How many scenes.
        rough: Roughen the cells as training with this config does; default exact cells.

    Returns:
        {"accuracy": percent by family, "n": questions by family}.
    """
    scenes, rng = scene.sample(scene.split_seeds("heldout", num_scenes)), np.random.default_rng(7)
    generator = torch.Generator().manual_seed(7)
    weight_BNV = torch.from_numpy(roughen(scenes, rough, rng) if rough else maplang.cells(scenes))
    items = [(i, question) for i in range(num_scenes) for question in language.questions(scenes, i, rng)]
    hits: dict[str, list[bool]] = {family: [] for family in language.FAMILIES}
    for lo in range(0, len(items), 128):
        rows, part = zip(*items[lo : lo + 128], strict=True)
        suffixes = [prompts.question(question.text) for question in part]
        inputs_BTD = embed_sequences(
            model,
            prompts,
            prompts.v1_prefix,
            weight_BNV[list(rows)],
            suffixes,
            noise=rough.noise if rough else 0.0,
            generator=generator,
        )
        hidden_BTD = model.model(inputs_embeds=inputs_BTD, use_cache=False).last_hidden_state
        start = inputs_BTD.shape[1] - max(map(len, suffixes))
        ends = [start + len(suffix) - 1 for suffix in suffixes]
        guesses = model.lm_head(hidden_BTD[torch.arange(len(part)), ends]).argmax(-1).tolist()
        for guess, question in zip(guesses, part, strict=True):
            hits[question.family].append([guess] == prompts.ids(question.answer))
    return percent_by_family(hits)


def percent_by_family(hits: Mapping[str, Sequence[bool]]) -> dict:
    """{"accuracy": percent right by family, "n": texts by family}."""
    return {
        "accuracy": {family: round(100 * float(np.mean(correct)), 1) for family, correct in hits.items()},
        "n": {family: len(correct) for family, correct in hits.items()},
    }


def build(folder: Path, config: VicunaConfig | None = None) -> dict:
    """Tokenizer and model (float16) into `folder`: everything that the shipped `miniature/vicuna` holds.

    Returns:
        The record for the build's training record.
    """
    from transformers import AutoTokenizer

    config = config or VicunaConfig()
    tokenizers.save(folder, config.context)
    model, record = train(config, AutoTokenizer.from_pretrained(folder))
    model.eval().half().save_pretrained(folder)
    return record
