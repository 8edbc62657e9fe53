"""lmms-eval's request tuples, read into a question and its picture.

See docs/hosts.md, "lmms-eval".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ...config import UserError
from .decoding import GenerationOptions, read_generation_options


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One question of a document."""

    context: str
    """The text, with the task's own words around it."""
    where: str
    """Task and document, for messages."""
    visuals: Any
    """What `doc_to_visual` gave."""

    def pictures(self) -> list[Image.Image]:
        """The images as RGB.

        Raises:
            UserError: A video or sound.
        """
        visuals = self.visuals if isinstance(self.visuals, Sequence) else [self.visuals]
        if self.visuals is None or not visuals:
            return []
        strange = [visual for visual in visuals if not isinstance(visual, Image.Image)]
        if strange:
            kind = "a path" if isinstance(strange[0], str) else f"a {type(strange[0]).__name__}"
            raise UserError(
                f"{self.where}: got {kind} where an image was expected; tove_llava sees images, no video, no sound"
            )
        return [visual.convert("RGB") for visual in visuals]


class Document:
    """What the tail of a request's arguments points at: one document of a task's split."""

    def __init__(self, task_dict: Mapping[str, Any], doc_id: int, task: str, split: str):
        self.fields = task_dict[task][split][doc_id]
        self.where = f"task `{task}`, split `{split}`, document {doc_id}"

    def ask(self, context: str, visuals: Any) -> Prompt:
        """A question about it."""
        return Prompt(context=context, where=self.where, visuals=visuals)


def by_decoding(requests: Sequence[Any]) -> dict[GenerationOptions, list[int]]:
    """Indices of the requests (their second argument says how to generate), grouped.

    Their order stays: documents about one picture, of which a model reads the picture once, mostly follow each other.
    """
    groups: dict[GenerationOptions, list[int]] = {}
    for index, request in enumerate(requests):
        groups.setdefault(read_generation_options(request.args[1]), []).append(index)
    return groups
