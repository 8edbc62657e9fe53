"""`ToVEVLM`: a ToVE checkpoint with the methods that VLMEvalKit calls.

torch is imported with the first model and not before: VLMEvalKit chooses each process's GPUs first.

See docs/hosts.md, "VLMEvalKit".
"""

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...config import ConfigError, UserError
from ...registry import nearest

CLASS = "ToVEVLM"

# LLaVA's prompts for multiple choice, which VLMEvalKit's own LLaVA uses: English, and Chinese where the question is.
_CHOOSE = "Answer with the option's letter from the given choices directly."
_CHOOSE_CHINESE = "\u8bf7\u76f4\u63a5\u56de\u7b54\u9009\u9879\u5b57\u6bcd\u3002"
_CHINESE = re.compile("[\u4e00-\u9fff]")
_OPTIONS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

Message = str | Mapping[str, str] | Sequence[str | Mapping[str, str]]


class ToVEVLM:
    """A model of this package with the methods that VLMEvalKit calls.

    Args:
        model_path: A merged folder or an adapter, as `tove chat` takes.
        max_new_tokens: Longest answer; the default is that of VLMEvalKit's LLaVA.
        device: Where to; none takes CUDA when there is one.

    Raises:
        UserError: The folder holds no such model, or an argument that there is not.
    """

    is_api = False
    INSTALL_REQ = False
    INTERLEAVE = False
    allowed_types = ("text", "image")

    def __init__(self, model_path: str, max_new_tokens: int = 2048, device: str | None = None, **unknown: Any):
        for name in unknown:
            raise ConfigError(f"{CLASS} has no argument `{name}`; {nearest(name, ('model_path', 'max_new_tokens'))}")
        from ...inference.chat import Chat

        self.chat_model = Chat.load(model_path, device)
        self.max_new_tokens = max_new_tokens
        self._dump_image: Callable[[Any], str | list[str]] | None = None

    def set_dump_image(self, dump_image: Callable[[Any], str | list[str]]) -> None:
        """Take the data set's function that writes a row's images and gives their paths."""
        self._dump_image = dump_image

    def dump_image(self, line: Any, dataset: str | None) -> str | list[str]:
        """Paths of a row's images."""
        if self._dump_image is None:
            raise UserError(f"{CLASS}: `set_dump_image` comes before `build_prompt`, as VLMEvalKit's inference has it")
        return self._dump_image(line)

    def use_custom_prompt(self, dataset: str) -> bool:
        """Whether `build_prompt` writes the question: for multiple choice, as VLMEvalKit's LLaVA has it."""
        return importlib.import_module("vlmeval.dataset").DATASET_TYPE(dataset) == "MCQ"

    def build_prompt(self, line: Any, dataset: str | None = None) -> list[dict[str, str]]:
        """The message for a row of a multiple-choice data set.

        Args:
            line: A row (pandas Series or dict) with `question`, perhaps `hint`, and the options `A`, `B`, ...
            dataset: Its name.
        """
        paths = self.dump_image(line, dataset)
        parts = [str(line[key]) for key in ("hint", "question") if _has(line, key)]
        options = [f"{letter}. {line[letter]}" for letter in _OPTIONS if _has(line, letter)]
        text = "\n".join([*parts, *options])
        text += "\n" + (_CHOOSE_CHINESE if _CHINESE.search(text) else _CHOOSE)
        images = [paths] if isinstance(paths, str) else list(paths)
        return [*({"type": "image", "value": path} for path in images), {"type": "text", "value": text}]

    def generate(self, message: Message, dataset: str | None = None) -> str:
        """Answer a message.

        Args:
            message: `{"type": "image" | "text", "value": path or text}`, a list of such, or plain texts and paths.
            dataset: Its data set's name; means nothing here.

        Raises:
            UserError: Several images, a video or sound.
        """
        return self.generate_inner(_parts(message), dataset)

    def generate_inner(self, message: Sequence[Mapping[str, str]], dataset: str | None = None) -> str:
        """As `generate`, of a list of parts."""
        from ...data.images import read_image

        prompt, path = self.message_to_promptimg(message, dataset)
        image = None if path is None else read_image(path)  # not turned as the camera says: benchmarks are not
        return self.chat_model.ask(image, prompt, max_new_tokens=self.max_new_tokens)

    def message_to_promptimg(
        self, message: Sequence[Mapping[str, str]], dataset: str | None = None
    ) -> tuple[str, str | None]:
        """The texts, a line each, and the image's path or None.

        Raises:
            UserError: As for `generate`.
        """
        strange = sorted({part["type"] for part in message} - set(self.allowed_types))
        images = [part["value"] for part in message if part["type"] == "image"]
        where = f"data set `{dataset}`" if dataset else "a message"
        if strange:
            raise UserError(f"{where} has {', '.join(strange)}; {CLASS} sees one image and text")
        if len(images) > 1:
            raise UserError(f"{where} shows {len(images)} images at once; a model of LLaVA's training sees one")
        return "\n".join(part["value"] for part in message if part["type"] == "text"), images[0] if images else None

    def chat(self, messages: Sequence[Any], dataset: str | None = None) -> str:
        """Multi-turn data sets are not offered."""
        raise UserError(f"data set `{dataset}` has several turns; {CLASS} answers single questions")


def _has(line: Any, key: str) -> bool:
    """Whether a row has a value there: empty cells of a table are NaN, which differs from itself."""
    return key in line and line[key] is not None and line[key] == line[key]


def _parts(message: Message) -> list[Mapping[str, str]]:
    parts = [message] if isinstance(message, str | Mapping) else message
    return [_part(part) if isinstance(part, str) else part for part in parts]


def _part(text: str) -> dict[str, str]:
    """A plain text is the path of an image where there is such a file."""
    is_file = len(text) < 4096 and "\n" not in text and "\0" not in text and Path(text).is_file()
    return {"type": "image" if is_file else "text", "value": text}
