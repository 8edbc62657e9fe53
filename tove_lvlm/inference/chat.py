"""Ask a trained model: greedy answers, one by one or in batches."""

from collections.abc import Hashable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from ..checkpoints import load_model
from ..data.images import read_image
from . import responder_of
from .batching import DecodingConfig, Picture, Pictures, PixelReader, pictures_of
from .plan import plan
from .shared import KEEP_BYTES, Pixels, SharedPicture, picture_key


def answer(
    model: nn.Module,
    processor,
    images: Sequence[Pictures],
    questions: Sequence[str],
    batch_size: int = 16,
    max_new_tokens: int = 64,
    image_aspect_ratio: str = "pad",
    decoding: DecodingConfig | None = None,
    keep_bytes: int = KEEP_BYTES,
) -> list[str]:
    """Answer each question about its image, which the tower sees once where several questions are about it.

    Args:
        model: A LLaVA model, inside peft or not, or a base model.
        processor: Its own.
        images: For each question an RGB image, a file, several of these, or None for a question about no image.
        questions: Plain text. Of several images each stands where the question has `<image>`, or else before it.
        batch_size: Questions that are answered together; the answers are those of batch size 1.
        max_new_tokens: Longest answer.
        image_aspect_ratio: As in training.
        decoding: How; none is greedy with `max_new_tokens`.
        keep_bytes: What may be kept of images that are asked about again.

    Raises:
        ValueError: Not one image for each question.
        DataError: An image cannot be read.
    """
    if len(images) != len(questions):
        raise ValueError(f"{len(images)} images for {len(questions)} questions; expected one for each")
    responder = responder_of(model.eval(), processor)
    pictures = [pictures_of(about) for about in images]
    rows = [responder.encode_question(q, len(about)) for q, about in zip(questions, pictures, strict=True)]
    pixels_of = PixelReader(processor.image_processor, image_aspect_ratio, apply_exif=True)
    decoding = decoding or DecodingConfig(max_new_tokens=max_new_tokens)
    answers = [""] * len(rows)
    keys = [picture_key(about[0]) if len(about) == 1 else None for about in pictures]  # several are not kept
    for window in plan(keys, [len(row) for row in rows], batch_size, responder.num_kept(keep_bytes)):
        shared: dict[Hashable, SharedPicture] = {}
        for chunk in window.batches:
            pixels: list[Pixels] = []
            for place in chunk:
                key = keys[place]
                for image in pictures[place]:
                    if window.keeps and key not in shared:
                        shared[key] = SharedPicture(pixels_of(image))
                    pixels.append(shared[key] if window.keeps else pixels_of(image))
            texts = responder.generate([rows[place] for place in chunk], pixels, decoding)
            for place, text in zip(chunk, texts, strict=True):
                answers[place] = text
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

    def ask(self, image: Pictures, question: str, max_new_tokens: int = 64) -> str:
        """Answer one question, see `answer`."""
        return self.ask_many([image], [question], max_new_tokens=max_new_tokens)[0]

    def about(self, image: Picture) -> "PictureChat":
        """One picture to ask about again and again: the model looks at it once.

        Args:
            image: An RGB image or a file. Neither it nor the model is to be changed while it is asked about.
        """
        return PictureChat(self, image)

    def ask_many(
        self, images: Sequence[Pictures], questions: Sequence[str], max_new_tokens: int = 64, batch_size: int = 50
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


class PictureChat:
    """Questions about one picture, each a conversation of its own.

    Args:
        chat: The model.
        image: An RGB image or a file.

    Raises:
        DataError: The image cannot be read.
    """

    def __init__(self, chat: Chat, image: Picture):
        self._responder = responder_of(chat.model.eval(), chat.processor)
        read = PixelReader(chat.processor.image_processor, chat.image_aspect_ratio, apply_exif=True)
        self._picture = SharedPicture(read(image))

    def ask(self, question: str, max_new_tokens: int = 64) -> str:
        """Answer one question."""
        row = self._responder.encode_question(question, num_images=1)
        return self._responder.generate([row], [self._picture], DecodingConfig(max_new_tokens=max_new_tokens))[0]
