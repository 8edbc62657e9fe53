"""Prompts to a LLaVA model, read whole or from what is kept of their pictures on.

All prompts about pictures begin alike: the system turn and the picture. What the language model's attention makes of
this beginning is kept with a `SharedPicture`, and prompts are read from there on; their padding is then in between.

Shapes: B batch, T tokens, K tokens after the beginning, 3 H W pixels.

See docs/evaluation.md, "Speed".
"""

import itertools
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import nn

from ..data.conversations import encode_prompt, expand_image_tokens, template_of
from ..data.turns import Conversation
from ..lvlm.parts import as_llava, text_config, vision_config
from .batching import human_turn, pad_left
from .cache import CACHE, can_be_shared, joined, split
from .shared import Pixels, SharedPicture, distinct, pixels_of, share_repeated


class Part(NamedTuple):
    """Rows of a batch that are read in the same way."""

    keeps: bool
    """Whether they go on from what is kept of their pictures."""
    places: list[int]
    """In the batch."""
    rows: list[Sequence[int]]
    pixels: list[Pixels]
    """Of the rows' pictures, in their order."""


class PromptReader:
    """A model with the tokenizer of its prompts.

    Args:
        model: A LLaVA model, inside peft or not.
        tokenizer: Its own.
    """

    def __init__(self, model: nn.Module, tokenizer: Any):
        self._model, self._tokenizer = model, tokenizer
        self.template = template_of(tokenizer)
        """Name of the conversation."""

    def prompt_ids(self, conversation: Conversation, num_images: int) -> list[int]:
        """Ids of the prompt of a conversation that ends with a question, the images' placeholders expanded.

        Args:
            conversation: LLaVA's.
            num_images: How many images it is about.
        """
        ids = encode_prompt(self._tokenizer, conversation, self.template, num_images)
        config = as_llava(self._model).config
        return expand_image_tokens(ids, ids, config.image_token_id, config.image_seq_length)

    @cached_property
    def beginning(self) -> list[int]:
        """Ids that all prompts about a picture begin with; none where a kept beginning could not be gone on from."""
        config = as_llava(self._model).config
        if not can_be_shared(text_config(config)):
            return []
        ids = self.prompt_ids([human_turn("?", num_images=1)], num_images=1)
        last = max(place for place, token in enumerate(ids) if token == config.image_token_id)
        return ids[: last + 1]

    @cached_property
    def picture_bytes(self) -> int:
        """See `Responder`: keys and values of the beginning."""
        llava = as_llava(self._model)
        config: Any = text_config(llava.config)
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        cached = 2 * config.num_hidden_layers * heads * width * len(self.beginning) * llava.dtype.itemsize
        size = vision_config(llava.config).image_size
        return cached and cached + 3 * size**2 * torch.float32.itemsize

    def parts(self, rows: Sequence[Sequence[int]], pixels: Sequence[Pixels]) -> list[Part]:
        """Rows that go on from what is kept of their picture, and all others.

        Args:
            rows: Ids with the images' placeholders expanded.
            pixels: For each image of each row.
        """
        config, given = as_llava(self._model).config, iter(share_repeated(pixels))
        counts = [list(row).count(config.image_token_id) // config.image_seq_length for row in rows]
        about: list[list[Pixels]] = [list(itertools.islice(given, n)) for n in counts]
        places: dict[bool, list[int]] = {True: [], False: []}
        for place, (row, of_row) in enumerate(zip(rows, about, strict=True)):
            start, shared = self.beginning, len(of_row) == 1 and isinstance(of_row[0], SharedPicture)
            places[shared and bool(start) and list(row[: len(start)]) == start].append(place)
        return [
            Part(keeps, chosen, [rows[i] for i in chosen], [one for i in chosen for one in about[i]])
            for keeps, chosen in places.items()
            if chosen
        ]

    def inputs(self, part: Part) -> dict[str, Any]:
        """What `generate` takes: whole prompts, with their pixels or with the cache of what they begin with."""
        if not part.keeps:
            ids_BT, mask_BT = pad_left(part.rows, self._tokenizer.pad_token_id)
            return model_inputs(self._model, ids_BT, mask_BT, [pixels_of(one) for one in part.pixels])
        pictures = [one for one in part.pixels if isinstance(one, SharedPicture)]
        self._look(pictures)
        start_BT = torch.tensor([self.beginning] * len(part.rows))
        ids_BK, mask_BK = pad_left([row[len(self.beginning) :] for row in part.rows], self._tokenizer.pad_token_id)
        ids_BT, mask_BT = torch.cat([start_BT, ids_BK], 1), torch.cat([torch.ones_like(start_BT), mask_BK], 1)
        kept = joined([one.kept for one in pictures])
        return {**model_inputs(self._model, ids_BT, mask_BT, []), CACHE: kept}

    def _look(self, pictures: Sequence[SharedPicture]) -> None:
        """Read the beginning of all prompts about some pictures, as far as that has not been done."""
        new = [one for one in distinct(pictures) if one.kept is None]
        if new:
            ids_BT = torch.tensor([self.beginning] * len(new))
            inputs = model_inputs(self._model, ids_BT, torch.ones_like(ids_BT), [one.pixels_3HW for one in new])
            output = self._model(**inputs, logits_to_keep=1, use_cache=True)
            for one, cache in zip(new, split(output[CACHE]), strict=True):
                one.kept = cache

    def read(self, part: Part) -> tuple[Any, torch.Tensor]:
        """What the model makes of some prompts, its cache among it, and (B, T) which columns of that are padding: 0."""
        inputs = self.inputs(part)
        start = len(self.beginning) if part.keeps else 0
        mask_BT = inputs["attention_mask"]
        position_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
        inputs |= {"input_ids": inputs["input_ids"][:, start:], "position_ids": position_BT[:, start:]}
        return self._model(**inputs, logits_to_keep=1, use_cache=True), mask_BT


def model_inputs(
    model: nn.Module, ids_BT: torch.Tensor, mask_BT: torch.Tensor, pixels: Sequence[torch.Tensor]
) -> dict[str, Any]:
    """What a LLaVA model takes, on its device and in its dtype.

    Args:
        model: Inside peft or not.
        ids_BT: Ids, with placeholders for each picture.
        mask_BT: 0 at what was padded.
        pixels: (3, H, W) for each picture.
    """
    llava = as_llava(model)
    inputs: dict[str, Any] = {"input_ids": ids_BT.to(llava.device), "attention_mask": mask_BT.to(llava.device)}
    if len(pixels):
        inputs["pixel_values"] = torch.stack(list(pixels)).to(llava.device, llava.dtype)
    return inputs
