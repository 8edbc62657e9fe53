"""Ask a trained model: greedy answers to LLaVA's v1 prompt, one by one or in batches. Our choice.

The prompt is tokenised by the code that tokenises training conversations, so that a question looks as it did there.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from ..data.constants import IMAGE_TOKEN
from ..data.conversations import encode_prompt, expand_image_tokens
from ..data.images import read_image, to_pixels
from .loading import load_model

logger = logging.getLogger(__name__)

Picture = Image.Image | str | Path


@torch.inference_mode()
def answer(
    model: nn.Module,
    processor,
    images: Sequence[Picture | None],
    questions: Sequence[str],
    batch_size: int = 16,
    max_new_tokens: int = 64,
    image_aspect_ratio: str = "pad",
) -> list[str]:
    """Answer each question about its image, greedily until `</s>`.

    Args:
        model: A LLaVA model, inside peft or not.
        processor: Its LlavaProcessor.
        images: One for each question: an RGB image, a file, or None for a question about no image.
        questions: Plain text.
        batch_size: Questions that are answered together; the answers are those of batch size 1.
        max_new_tokens: Longest answer.
        image_aspect_ratio: As in training.

    Raises:
        ValueError: Not one image for each question.
        DataError: An image cannot be read.
    """
    if len(images) != len(questions):
        raise ValueError(f"{len(images)} images for {len(questions)} questions; expected one for each")
    model.eval()
    rows = [encode_question(processor, model, q, image is not None) for q, image in zip(questions, images, strict=True)]
    # Neighbours of similar length waste no padding; the answers go back to their places.
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    answers = [""] * len(rows)
    seen: dict[str, torch.Tensor] = {}
    for start in range(0, len(order), batch_size):
        chunk = order[start : start + batch_size]
        pixels = [_pixels(images[i], processor, image_aspect_ratio, seen) for i in chunk if images[i] is not None]
        texts = _generate(model, processor, [rows[i] for i in chunk], pixels, max_new_tokens)
        for index, text in zip(chunk, texts, strict=True):
            answers[index] = text
    return answers


def encode_question(processor, model: nn.Module, question: str, has_image: bool) -> list[int]:
    """Ids of the v1 prompt with the image's placeholders expanded."""
    value = f"{IMAGE_TOKEN}\n{question}" if has_image else question
    ids = encode_prompt(processor.tokenizer, [{"from": "human", "value": value}], "v1")
    return expand_image_tokens(ids, ids, model.config.image_token_id, model.config.image_seq_length)


def _generate(model: nn.Module, processor, rows: list[list[int]], pixels: list[torch.Tensor], max_new_tokens: int):
    tokenizer = processor.tokenizer
    width = max(len(row) for row in rows)
    # Left padding: every answer then starts at the same column.
    ids_BT = torch.tensor([[tokenizer.pad_token_id] * (width - len(row)) + row for row in rows])
    mask_BT = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    inputs = {"input_ids": ids_BT.to(model.device), "attention_mask": mask_BT.to(model.device)}
    if pixels:
        inputs["pixel_values"] = torch.stack(pixels).to(model.device, model.dtype)
    out_BT = model.generate(
        **inputs,
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )[:, width:]
    texts = []
    for row in out_BT.tolist():
        end = row.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in row else len(row)
        texts.append(tokenizer.decode(row[:end], skip_special_tokens=True).strip())
    return texts


def _pixels(image: Picture, processor, aspect_ratio: str, seen: dict[str, torch.Tensor]) -> torch.Tensor:
    if isinstance(image, Image.Image):
        return to_pixels(image.convert("RGB"), processor.image_processor, aspect_ratio)
    key = str(image)
    if key not in seen:
        if len(seen) >= 1024:  # several questions about one image come close together
            seen.clear()
        seen[key] = to_pixels(read_image(image, apply_exif=True), processor.image_processor, aspect_ratio)
    return seen[key]


class Chat:
    """A loaded model that answers."""

    def __init__(self, model: nn.Module, processor, image_aspect_ratio: str = "pad"):
        self.model = model
        self.processor = processor
        self.image_aspect_ratio = image_aspect_ratio

    @classmethod
    def load(cls, folder: str | Path, device: str | None = None) -> "Chat":
        """Load a merged model or an adapter folder.

        Args:
            folder: What stage 2 wrote: `output_dir` or its `adapter`, or any folder that
                LlavaForConditionalGeneration loads.
            device: Where to; none takes CUDA when there is one.

        Raises:
            UserError: The folder holds no such model.
        """
        loaded = load_model(folder)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(loaded.model.to(device).eval(), loaded.processor, loaded.image_aspect_ratio)

    def open_image(self, path: str | Path) -> Image.Image:
        """Read any photograph as RGB, turned as its camera says.

        Raises:
            DataError: It is missing, broken or too large.
        """
        return read_image(path, apply_exif=True)

    def ask(self, image: Picture | None, question: str, max_new_tokens: int = 64) -> str:
        """Answer one question."""
        return self.ask_many([image], [question], max_new_tokens=max_new_tokens)[0]

    def ask_many(
        self, images: Sequence[Picture | None], questions: Sequence[str], max_new_tokens: int = 64, batch_size: int = 50
    ) -> list[str]:
        """Answer many questions; see `answer`."""
        return answer(
            self.model,
            self.processor,
            images,
            questions,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            image_aspect_ratio=self.image_aspect_ratio,
        )
