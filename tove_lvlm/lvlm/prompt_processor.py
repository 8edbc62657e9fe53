"""The base model's processor: pictures to pixels, texts to what the decoder goes on from or learns to say.

On disk it is transformers' `TrOCRProcessor` (the same two parts, read by `AutoProcessor`), whose own call gives a text
as labels to train on; a prompt to go on from is what the pipeline `image-text-to-text` and `generate` take.

Shapes: B images, T tokens, 3 H W pixels.
"""

import os
from collections.abc import Sequence
from typing import Any, Self, cast

import torch
from transformers import BatchFeature, TrOCRProcessor, VisionEncoderDecoderModel

from ..data.conversations import IGNORE_INDEX, Encoded
from ..data.errors import DataError


class PromptProcessor(TrOCRProcessor):
    """Image processor and tokenizer of a base model, which says how its texts begin and end (`for_model`).

    Args:
        image_processor: The tower's.
        tokenizer: The decoder's.
    """

    start_token_id: int
    end_token_id: int
    max_length: int
    """Tokens of a text, start and end included, that the decoder has positions for."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None):
        super().__init__(image_processor, tokenizer)

    def for_model(self, model: VisionEncoderDecoderModel) -> Self:
        """This processor, with the start, the end and the longest text of a model's decoder."""
        generation = model.generation_config
        self.start_token_id = cast(int, generation.decoder_start_token_id)
        self.end_token_id = cast(int, generation.eos_token_id)
        self.max_length = context_length(model.config.decoder)
        return self

    def prompt_ids(self, text: str = "") -> list[int]:
        """The start and a prompt: what the decoder goes on from. Blanks around the text do not count."""
        return [self.start_token_id, *(self._encode(text.strip()) if text.strip() else [])]

    def answer_ids(self, prompt: Sequence[int], answer: str) -> Encoded:
        """Ids of a prompt with an answer and the end; labels mark these two, at their own places.

        Prompt and answer are tokenised apart, so that what is generated from a prompt goes on as in training.

        Args:
            prompt: From `prompt_ids`.
            answer: A caption, or what answers a question.
        """
        # Tokenizers of GPT-2's kind make the blank before a word a part of it.
        text = answer.strip() if len(prompt) == 1 else f" {answer.strip()}"
        said = [*self._encode(text), self.end_token_id]
        return Encoded([*prompt, *said], [*[IGNORE_INDEX] * len(prompt), *said])

    def encode_rounds(self, pairs: Sequence[tuple[str, str]]) -> list[Encoded]:
        """A row for each question about an image, with its answer; the rows do not see each other.

        Args:
            pairs: Of `data.conversations.rounds`; at least one.

        Raises:
            DataError: One is longer than the decoder's texts can be.
        """
        rows = [self.answer_ids(self.prompt_ids(question), answer) for question, answer in pairs]
        longest = max(len(row.input_ids) for row in rows)
        if longest > self.max_length:
            raise DataError(f"a text of {longest} tokens is longer than the decoder's context of {self.max_length}")
        return rows

    def __call__(  # type: ignore[override]  # a prompt, not labels
        self, images: Any = None, text: str | Sequence[str] | None = None, **kwargs: Any
    ) -> BatchFeature:
        """Pixels, and the prompt as `decoder_input_ids`.

        Args:
            images: One picture or several.
            text: A prompt, or one for each picture; those of one call have the same number of tokens.
            **kwargs: Of the image processor.

        Returns:
            `pixel_values` (B, 3, H, W) and, where there is a text, `decoder_input_ids` (B, T).

        Raises:
            ValueError: Prompts of different lengths, which decoders without position ids cannot be given in one batch.
        """
        inputs = BatchFeature(dict(self.image_processor(images, return_tensors="pt")) if images is not None else {})
        if text is not None:
            rows = [self.prompt_ids(one) for one in ([text] if isinstance(text, str) else text)]
            lengths = sorted({len(row) for row in rows})
            if len(lengths) > 1:
                raise ValueError(f"prompts of {lengths} tokens in one call; expected one length")
            inputs["decoder_input_ids"] = torch.tensor(rows)
        return inputs

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any) -> Any:
        """As a `TrOCRProcessor`."""
        stock = TrOCRProcessor(image_processor=self.image_processor, tokenizer=self.tokenizer)
        return stock.save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    def _encode(self, text: str) -> list[int]:
        return cast("list[int]", self.tokenizer(text, add_special_tokens=False).input_ids)


def context_length(config: Any) -> int:
    """Tokens of a text that a decoder has positions for.

    Args:
        config: The decoder's. RoBERTa's kind counts positions from behind the padding's id.
    """
    positions = int(getattr(config, "n_positions", None) or config.max_position_embeddings)
    counts_from_padding = config.model_type in ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl")
    return positions - config.pad_token_id - 1 if counts_from_padding else positions
