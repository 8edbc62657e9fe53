"""Stage `clip`: the miniature's CLIP, trained contrastively on captions that name colours and shapes, never a place.

Two contrastive terms on the same captions. The usual one sets the image's CLS embedding against whole captions of the
batch. The second sets single patches against the 24 noun phrases ("a red cone"): an image scores a phrase by its best
patches, and must score the phrases of its own caption above the others (late interaction, as in FILIP, with SigLIP's
loss). No box or mask is used; the patch tokens learn what they show because the best patches are the right ones.

With richer captions ("a red cone far") it is a better encoder; that one is not shipped, the study trains it.

Shapes: B images, N patches, D width of the joint space, P phrases.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPConfig, CLIPModel, CLIPVisionModel, PreTrainedModel

from tove_lvlm.world.language import distance
from tove_lvlm.world.render import relative_depth
from tove_lvlm.world.scene import COLORS, IMAGE_SIZE, SHAPES, Scenes
from tove_lvlm.world.things import things

from .common import (
    DEPTH,
    HEADS,
    PATCH,
    SIDE,
    WIDTH,
    Pool,
    Report,
    fit,
    normalised,
    save_image_processor,
    sincos_positions,
)

STEPS, BATCH, RATE, SEED = 900, 96, 1.5e-3, 11

DISTANCES = ("far", "halfway", "near")

_BOS, _EOS, _PAD, _A, _AND = range(5)
_WORDS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Captions:
    """What captions name of an object: its color and shape, and with `distances` also how far it is."""

    distances: bool = False

    @property
    def num_words(self) -> int:
        """Size of the vocabulary."""
        return _WORDS + len(COLORS) + len(SHAPES) + (len(DISTANCES) if self.distances else 0)

    @property
    def length(self) -> int:
        """Tokens of a caption of four objects."""
        return 2 + 4 * (5 if self.distances else 4)

    @functools.cached_property
    def phrases(self) -> list[tuple[int, ...]]:
        """Words of all noun phrases, by number."""
        pairs = [(c, s) for c in range(len(COLORS)) for s in range(len(SHAPES))]
        if not self.distances:
            return [_color_and_shape(*pair) for pair in pairs]
        first = _WORDS + len(COLORS) + len(SHAPES)
        return [(*_color_and_shape(*pair), first + d) for pair in pairs for d in range(len(DISTANCES))]

    def numbers(self, scenes: Scenes) -> np.ndarray:
        """(S, 4) int64: the phrase of each object; what lies beyond a scene's objects has no meaning."""
        numbers = scenes.color.astype(np.int64) * len(SHAPES) + scenes.shape
        if self.distances:
            numbers = numbers * len(DISTANCES)
            for i in range(len(scenes)):
                numbers[i, : scenes.num_objects[i]] += [DISTANCES.index(distance(thing)) for thing in things(scenes, i)]
        return numbers


def build_model(captions: Captions) -> CLIPModel:
    """A CLIPModel with 2-D sine-cosine positions, fixed, in its ordinary position embedding."""
    config = CLIPConfig(
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": DEPTH,
            "num_attention_heads": HEADS,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH,
            "projection_dim": 64,
        },
        text_config={
            "vocab_size": captions.num_words,
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": captions.length,
            "bos_token_id": _BOS,
            "eos_token_id": _EOS,
            "pad_token_id": _PAD,
        },
        projection_dim=64,
    )
    model = CLIPModel(config)
    positions = model.vision_model.embeddings.position_embedding.weight
    with torch.no_grad():
        positions.zero_()
        positions[1:] = sincos_positions(WIDTH, SIDE)
    positions.requires_grad_(False)
    return model


def caption_ids(
    captions: Captions, numbers: np.ndarray, num_objects: np.ndarray, rng: np.random.Generator
) -> torch.Tensor:
    """Token ids (B, L) of "a red cone and a blue box and ...": every object, in an order that tells nothing.

    Args:
        captions: What they name.
        numbers: (B, 4), each object's phrase.
        num_objects: (B,), how many objects there are.
        rng: Draws the order.
    """
    ids = np.full((len(numbers), captions.length), _PAD, np.int64)
    for row, num in enumerate(num_objects):
        words = [_BOS]
        for slot in rng.permutation(num):
            words += [_A, *captions.phrases[numbers[row, slot]], _AND]
        words[-1] = _EOS
        ids[row, : len(words)] = words
    return torch.from_numpy(ids)


def phrase_ids(captions: Captions) -> torch.Tensor:
    """Token ids (P, 5) of all noun phrases, or (P, 6) with distances."""
    return torch.tensor([[_BOS, _A, *words, _EOS] for words in captions.phrases])


def _color_and_shape(color: int, shape: int) -> tuple[int, int]:
    return _WORDS + color, _WORDS + len(COLORS) + shape


def phrase_targets(captions: Captions, scenes: Scenes, numbers: np.ndarray) -> torch.Tensor:
    """(S, P) float: which phrases a scene's caption holds."""
    targets = torch.zeros(len(scenes), len(captions.phrases))
    scene, slot = np.nonzero(scenes.valid)
    targets[scene, numbers[scene, slot]] = 1
    return targets


def train(
    pool: Pool, out_dir: Path, report: Report, captions: Captions | None = None, steps: int | None = None
) -> dict:
    """Train the model, save its vision half to `out_dir`, return the stage's record.

    Args:
        pool: Pictures and scenes.
        out_dir: Gets config, weights and preprocessor.
        report: Told of the steps.
        captions: What they name; none for those of the shipped encoder.
        steps: Optimizer steps; none for `STEPS`.
    """
    torch.manual_seed(SEED)
    captions = captions or Captions()
    model, scenes = build_model(captions), pool.train_scenes
    numbers = captions.numbers(scenes)
    phrases, targets = phrase_ids(captions), phrase_targets(captions, scenes, numbers)
    rng = np.random.default_rng(SEED + 1)
    scale = torch.nn.ParameterDict({"scale": torch.tensor(math.log(10.0)), "bias": torch.tensor(-6.0)})

    def loss_of(index: np.ndarray) -> torch.Tensor:
        hidden_BND = model.vision_model(normalised(pool.train.rgb[index])).last_hidden_state
        joint_BND = model.visual_projection(model.vision_model.post_layernorm(hidden_BND))
        image_BD, patch_BND = F.normalize(joint_BND[:, 0], dim=-1), F.normalize(joint_BND[:, 1:], dim=-1)
        ids = caption_ids(captions, numbers[index], scenes.num_objects[index], rng)
        text_BD = F.normalize(model.get_text_features(ids).pooler_output, dim=-1)
        logits = image_BD @ text_BD.T * model.logit_scale.exp().clamp(max=100)
        same = torch.arange(len(index))
        loss = (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 2
        phrase_PD = F.normalize(model.get_text_features(phrases).pooler_output, dim=-1)
        match_BNP = patch_BND @ phrase_PD.T * scale["scale"].exp()
        match_BP = torch.logsumexp(match_BNP, dim=1) + scale["bias"]
        local = F.binary_cross_entropy_with_logits(match_BP, targets[index], reduction="sum") / len(index)
        return loss + local

    size = {"steps": steps or STEPS, "batch": BATCH, "lr": RATE, "seed": SEED, "num_samples": len(scenes)}
    record = fit("clip", [model, scale], loss_of, **size, report=report)
    model.eval()
    vision = CLIPVisionModel(model.config.vision_config)
    missing, unexpected = vision.load_state_dict(model.vision_model.state_dict(), strict=False)
    if missing or unexpected:
        raise RuntimeError(f"the vision half does not fit CLIPVisionModel: {missing=} {unexpected=}")
    vision.half().save_pretrained(out_dir)
    save_image_processor(out_dir)
    record["parameters"] = sum(p.numel() for p in vision.parameters())
    found = _measure(model, captions, pool, np.random.default_rng(SEED + 2))
    record["heldout"] = found | probe_tokens(vision.float(), pool)
    return record


@torch.no_grad()
def _measure(model: CLIPModel, captions: Captions, pool: Pool, rng: np.random.Generator) -> dict:
    """Top-1 of an image among 128 held-out captions."""
    correct = total = 0
    numbers, num_objects = captions.numbers(pool.heldout_scenes), pool.heldout_scenes.num_objects
    for start in range(0, len(pool.heldout), 128):
        index = np.arange(start, min(start + 128, len(pool.heldout)))
        pixels = normalised(pool.heldout.rgb[index])
        image = F.normalize(model.get_image_features(pixels).pooler_output, dim=-1)
        ids = caption_ids(captions, numbers[index], num_objects[index], rng)
        text = F.normalize(model.get_text_features(ids).pooler_output, dim=-1)
        correct += int(((image @ text.T).argmax(dim=1) == torch.arange(len(index))).sum())
        total += len(index)
    return {"top1_of_128": round(correct / total, 4)}


@torch.no_grad()
def probe_tokens(vision: PreTrainedModel, pool: Pool, class_tokens: int = 1) -> dict:
    """What a linear map reads from the patch tokens of layer -2: row and column, colour and shape, depth.

    Args:
        vision: An encoder of transformers.
        pool: Pictures and scenes.
        class_tokens: How many of its tokens come before the patches.
    """
    vision.eval()

    def tokens(rgb: np.ndarray) -> torch.Tensor:
        parts = [
            vision(normalised(rgb[i : i + 128]), output_hidden_states=True).hidden_states[-2][:, class_tokens:]
            for i in range(0, len(rgb), 128)
        ]
        return torch.cat(parts)

    return linear_probes(tokens(pool.train.rgb[:1024]), tokens(pool.heldout.rgb), pool)


def cell_labels(
    object_id: np.ndarray, scenes: Scenes, least: float = 0.25
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per cell of the 8 x 8 grid the slot, shape and colour of the object that covers most of it, -1 below `least`.

    Returns:
        three (S, 64) int64 arrays.
    """
    cells = object_id.reshape(-1, SIDE, PATCH, SIDE, PATCH).transpose(0, 1, 3, 2, 4).reshape(-1, SIDE * SIDE, PATCH**2)
    share = np.stack([(cells == k).mean(axis=-1) for k in range(4)], axis=-1)
    slot = np.where(share.max(axis=-1) >= least, share.argmax(axis=-1), -1).astype(np.int64)
    picked = np.maximum(slot, 0)
    shape = np.where(slot >= 0, np.take_along_axis(scenes.shape.astype(np.int64), picked, axis=1), -1)
    color = np.where(slot >= 0, np.take_along_axis(scenes.color.astype(np.int64), picked, axis=1), -1)
    return slot, shape, color


def linear_probes(train_BND: torch.Tensor, heldout_BND: torch.Tensor, pool: Pool) -> dict:
    """Linear maps from frozen tokens of the first training scenes, measured on the held-out ones.

    Classes by logistic regression (`probe_shape` and `probe_color` on cells that an object covers), depth of the
    object in a cell by ridge regression.
    """
    parts = []
    for tokens, rendered, scenes in (
        (train_BND, pool.train, pool.train_scenes),
        (heldout_BND, pool.heldout, pool.heldout_scenes),
    ):
        count = len(tokens)
        slot, shape, color = cell_labels(rendered.object_id[:count], scenes[:count])
        depth = np.take_along_axis(relative_depth(np.maximum(scenes.depth[:count], 1)), np.maximum(slot, 0), axis=1)
        place = np.broadcast_to(np.arange(SIDE * SIDE), slot.shape)
        flat = torch.cat([tokens.float().flatten(0, 1), torch.ones(count * SIDE * SIDE, 1)], dim=1).double()
        labels = {"row": place // SIDE, "column": place % SIDE, "shape": shape, "color": color, "depth": depth}
        parts.append((flat, torch.from_numpy((slot >= 0).reshape(-1)), {k: v.reshape(-1) for k, v in labels.items()}))
    (x, on, y), (x_held, on_held, y_held) = parts
    mean, std = x[:, :-1].mean(dim=0), x[:, :-1].std(dim=0) + 1e-6
    for values in (x, x_held):
        values[:, :-1] = (values[:, :-1] - mean) / std
    figures = {}
    for name in ("row", "column", "shape", "color"):
        every = name in ("row", "column")
        use, use_held = (slice(None), slice(None)) if every else (on, on_held)
        probe = _classifier(x[use], torch.from_numpy(y[name])[use])
        correct = probe(x_held[use_held]).argmax(dim=1) == torch.from_numpy(y_held[name])[use_held]
        figures[f"probe_{name}"] = round(float(correct.double().mean()), 4)
    guess = x_held[on_held] @ _ridge(x[on], torch.from_numpy(y["depth"])[on].double()[:, None])
    target = torch.from_numpy(y_held["depth"])[on_held].double()
    figures["probe_depth_r2"] = round(float(1 - ((guess[:, 0] - target) ** 2).mean() / target.var()), 4)
    return figures


def _classifier(x: torch.Tensor, classes: torch.Tensor) -> torch.nn.Linear:
    """Multinomial logistic regression by L-BFGS."""
    probe = torch.nn.Linear(x.shape[1], int(classes.max()) + 1)
    torch.nn.init.zeros_(probe.weight)
    torch.nn.init.zeros_(probe.bias)
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=60, history_size=10)
    x = x.float()

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(probe(x), classes) + 1e-4 * probe.weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return probe.double()


def _ridge(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    gram = x.T @ x
    return torch.linalg.solve(gram + 1e-3 * len(x) * torch.eye(len(gram), dtype=x.dtype), x.T @ y)
