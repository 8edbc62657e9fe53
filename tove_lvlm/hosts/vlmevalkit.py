r"""VLMEvalKit as host: a ToVE checkpoint among its models, without a change to its files.

    python -m tove_lvlm.hosts.vlmevalkit --root VLMEvalKit --model FOLDER --name ToVE-Vicuna-7B -- \
        --data POPE VSR-zeroshot --judge exact_matching --work-dir outputs/vlmevalkit

runs VLMEvalKit's own `run.py` with what follows `--`, and `--model NAME` added where neither `--model` nor `--config`
stands there. A `--config` JSON names the class: {"model": {"any name": {"class": "ToVEVLM", "model_path": "FOLDER"}}}.
Several processes: `torchrun --nproc-per-node 8 -m tove_lvlm.hosts.vlmevalkit ...`.

See docs/hosts.md, "VLMEvalKit".
"""

import argparse
import importlib
import importlib.abc
import importlib.util
import re
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..config import ConfigError, UserError
from ..registry import nearest

CLASS, NAME = "ToVEVLM", "ToVE"

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
        from ..inference.chat import Chat

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
        from ..data.images import read_image

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


def register(name: str, model_path: str | Path, **options: Any) -> None:
    """Put a model among VLMEvalKit's, in this process.

    Args:
        name: What `--model` and result files call it.
        model_path: As for `ToVEVLM`, as are `options`.

    Raises:
        ConfigError: VLMEvalKit has a model of that name.
        UserError: VLMEvalKit cannot be imported.
    """
    supported = _vlmeval("vlmeval.config").supported_VLM
    if name in supported and getattr(supported[name], "func", None) is not ToVEVLM:
        raise ConfigError(f"VLMEvalKit has a model `{name}` of its own; choose another name")
    supported[name] = partial(ToVEVLM, model_path=str(model_path), **options)
    setattr(_vlmeval("vlmeval.vlm"), CLASS, ToVEVLM)


def main(argv: Sequence[str]) -> None:
    """Run VLMEvalKit's `run.py` with our model.

    Args:
        argv: Our options, `--`, and run.py's arguments.

    Raises:
        UserError: There is no VLMEvalKit in `--root`, or no model in `--model`.
    """
    ours, theirs = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    args = _arguments().parse_args(list(ours))
    script = Path(args.root).resolve() / "run.py"
    if not script.is_file() or not (script.parent / "vlmeval").is_dir():
        raise UserError(f"`--root {args.root}` is no checkout of VLMEvalKit: expected run.py and vlmeval/ in it")
    if not Path(args.model).is_dir():
        raise UserError(f"`--model {args.model}`: there is no such folder")
    named = [] if {"--model", "--config"} & set(theirs) else ["--model", args.name]
    sys.path.insert(0, str(script.parent))
    sys.argv = [str(script), *theirs, *named]
    # run.py gives each process its GPUs before it imports torch, so the model may not be registered earlier.
    options = {} if args.max_new_tokens is None else {"max_new_tokens": args.max_new_tokens}
    sys.meta_path.insert(0, _AfterConfig(partial(register, args.name, Path(args.model).resolve(), **options)))
    runpy.run_path(str(script), run_name="__main__")


class _AfterConfig(importlib.abc.MetaPathFinder):
    """Calls a function once, right after `vlmeval.config` has been imported."""

    def __init__(self, then: Callable[[], None]):
        self._then = then

    def find_spec(self, fullname: str, path=None, target=None) -> Any:
        if fullname != "vlmeval.config":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                run(module)
                self._then()

            loader: Any = spec.loader
            loader.exec_module = exec_module
        return spec


def _arguments() -> argparse.ArgumentParser:
    usage = "%(prog)s --root DIR --model FOLDER [--name NAME] [--max-new-tokens N] -- ARGS..."
    parser = argparse.ArgumentParser(prog="python -m tove_lvlm.hosts.vlmevalkit", usage=usage)
    parser.add_argument("--root", required=True, help="a checkout of VLMEvalKit")
    parser.add_argument("--model", required=True, help="a merged folder or an adapter")
    parser.add_argument("--name", default=NAME, help="what VLMEvalKit calls it (default: %(default)s)")
    parser.add_argument("--max-new-tokens", type=int, help="longest answer (default: 2048)")
    return parser


def _vlmeval(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != "vlmeval":
            raise  # VLMEvalKit is there and one of its own imports is not: that message says more
        raise UserError(
            "VLMEvalKit is not installed: clone github.com/open-compass/VLMEvalKit and `pip install -e` it, or run "
            "`python -m tove_lvlm.hosts.vlmevalkit --root` with the clone"
        ) from error


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


if __name__ == "__main__":
    from tove_lvlm.hosts import vlmevalkit  # under its own name: the class must be one and the same

    try:
        vlmevalkit.main(sys.argv[1:])
    except (UserError, ImportError) as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from error
