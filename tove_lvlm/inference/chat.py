"""Ask a trained model: greedy answers, one by one or in batches."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from ..checkpoints import load_model
from ..data.images import read_image
from . import responder_of
from .batching import DecodingConfig, Picture, PixelReader, length_sorted


def answer(
    model: nn.Module,
    processor,
    images: Sequence[Picture | None],
    questions: Sequence[str],
    batch_size: int = 16,
    max_new_tokens: int = 64,
    image_aspect_ratio: str = "pad",
    decoding: DecodingConfig | None = None,
) -> list[str]:
    """Answer each question about its image.

    Args:
        model: A LLaVA model, inside peft or not, or a base model.
        processor: Its own.
        images: One for each question: an RGB image, a file, or None for a question about no image.
        questions: Plain text.
        batch_size: Questions that are answered together; the answers are those of batch size 1.
        max_new_tokens: Longest answer.
        image_aspect_ratio: As in training.
        decoding: How; none is greedy with `max_new_tokens`.

    Raises:
        ValueError: Not one image for each question.
        DataError: An image cannot be read.
    """
    if len(images) != len(questions):
        raise ValueError(f"{len(images)} images for {len(questions)} questions; expected one for each")
    responder = responder_of(model.eval(), processor)
    rows = [responder.encode_question(q, image is not None) for q, image in zip(questions, images, strict=True)]
    pixels_of = PixelReader(processor.image_processor, image_aspect_ratio, apply_exif=True)
    decoding = decoding or DecodingConfig(max_new_tokens=max_new_tokens)
    answers = [""] * len(rows)
    for chunk in length_sorted([len(row) for row in rows], batch_size):
        pixels = [pixels_of(image) for i in chunk if (image := images[i]) is not None]
        texts = responder.generate([rows[i] for i in chunk], pixels, decoding)
        for index, text in zip(chunk, texts, strict=True):
            answers[index] = text
    return answers


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
        """Read any photograph, turned as its camera says.

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
