"""lmms-eval's generation arguments, read into one value.

See docs/hosts.md, "lmms-eval".
"""

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...config import ConfigError
from ...inference.batching import DecodingConfig

logger = logging.getLogger(__name__)

_LONGEST = 1024
_FEWSHOT_DELIMITER = "\n\n"
_NUMBERS = ("max_new_tokens", "temperature", "top_p", "num_beams")
# What some tasks set for single models, or what says nothing that the others do not.
_OF_OTHERS = {"image_aspect_ratio", "image_sizes", "use_cache", "do_sample", "until"}


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """How one group of requests is answered."""

    decoding: DecodingConfig
    """Without a word of the task, greedy and as long as lmms-eval's LLaVA models answer."""
    until: tuple[str, ...] = ()
    """The answer ends before the first of these."""

    def cut(self, text: str) -> str:
        """The answer without its stop text and what follows."""
        for stop in self.until:
            text = text.split(stop)[0]
        return text.strip()


def read_generation_options(gen_kwargs: Mapping[str, Any]) -> GenerationOptions:
    r"""Read a task's `generation_kwargs`.

    lmms-eval adds `until: ["\n\n"]`, the delimiter of few-shot examples, to every task that names none. It would cut
    long answers after their first paragraph, so it is left out, as lmms-eval's newer models do.

    Args:
        gen_kwargs: Not changed. An argument that means nothing here is named once in the log.

    Raises:
        UserError: A value is out of range or of the wrong type.
    """
    until = gen_kwargs.get("until") or []
    stops = [until] if isinstance(until, str) else until
    if not isinstance(stops, list | tuple) or not all(isinstance(stop, str) for stop in stops):
        raise ConfigError(f"generation argument `until` is {until!r}; expected a text or a list of texts")
    options = {name: gen_kwargs[name] for name in _NUMBERS if gen_kwargs.get(name) is not None}
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"generation argument `{name}` is {value!r}; expected a number")
    if gen_kwargs.get("do_sample") is False or not options.get("temperature"):
        options = {name: value for name, value in options.items() if name not in ("temperature", "top_p")}
    for name in sorted(set(gen_kwargs) - {*_NUMBERS, *_OF_OTHERS}):
        _warn_once(name)
    decoding = DecodingConfig(**({"max_new_tokens": _LONGEST} | options))
    return GenerationOptions(
        decoding=decoding, until=tuple(stop for stop in stops if stop and stop != _FEWSHOT_DELIMITER)
    )


@functools.cache  # once for each name
def _warn_once(name: str) -> None:
    logger.warning("generation argument `%s` means nothing to tove_llava and is left out", name)
