"""lmms-eval's generation arguments, read into one value. EVAL.md section 3.1."""

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...config import ConfigError

logger = logging.getLogger(__name__)

_FEWSHOT_DELIMITER = "\n\n"
# What some tasks set for single models, or what says nothing that the others do not.
_OF_OTHERS = {"image_aspect_ratio", "image_sizes", "use_cache", "do_sample"}


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How one group of requests is answered."""

    max_new_tokens: int = 1024
    """Longest answer; the default is that of lmms-eval's LLaVA models."""
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float | None = None
    """Of sampling; None keeps every token."""
    num_beams: int = 1
    until: tuple[str, ...] = ()
    """The answer ends before the first of these."""

    def __post_init__(self) -> None:
        for name, low in (("max_new_tokens", 1), ("temperature", 0), ("num_beams", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or value < low:
                raise ConfigError(f"generation argument `{name}` is {value!r}; expected a number of at least {low}")

    def cut(self, text: str) -> str:
        """The answer without its stop text and what follows."""
        for stop in self.until:
            text = text.split(stop)[0]
        return text.strip()


def read_decoding(given: Mapping[str, Any]) -> Decoding:
    r"""Read a task's `generation_kwargs`.

    lmms-eval adds `until: ["\n\n"]`, the delimiter of few-shot examples, to every task that names none. It would cut
    long answers after their first paragraph, so it is left out, as lmms-eval's newer models do.

    Args:
        given: Not changed. An argument that means nothing here is named once in the log.

    Raises:
        ConfigError: A value is out of range or of the wrong type.
    """
    given = dict(given)
    until = given.pop("until", None) or []
    if not isinstance(until, str | list | tuple) or not all(isinstance(stop, str) for stop in until):
        raise ConfigError(f"generation argument `until` is {until!r}; expected a text or a list of texts")
    stops = [until] if isinstance(until, str) else until
    known = {name: given[name] for name in ("max_new_tokens", "temperature", "top_p", "num_beams") if name in given}
    if known.get("temperature") is None or given.get("do_sample") is False:
        known["temperature"] = 0.0
    if not known["temperature"]:
        known["top_p"] = None  # tasks write 0 or 1, which say nothing of greedy answers
    for name in sorted(set(given) - set(known) - _OF_OTHERS):
        _tell(name)
    return Decoding(until=tuple(stop for stop in stops if stop and stop != _FEWSHOT_DELIMITER), **known)


@functools.cache  # once for each name
def _tell(name: str) -> None:
    logger.warning("generation argument `%s` means nothing to tove_llava and is left out", name)
