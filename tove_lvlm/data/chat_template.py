"""A conversation in the words of a language model's own chat template.

The template is asked once for every shape of conversation, with marks in place of the texts; what it writes around them
is the same for all conversations of that shape. Each answer stands after the template's generation prompt, as when it
is asked for: a template that thinks (Qwen3) has its empty thinking block before every answer, while the template itself
writes it before the last one alone.

What is learnt of an answer starts where the generation prompt ends. It ends with the template's `{% generation %}`
block where that holds the token that ends a turn, and else with that token.

Source: our choice. Thinking blocks aside it is `apply_chat_template` of the conversation.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, proxy

from jinja2 import TemplateError

from ..errors import ConfigError
from .errors import DataError
from .turns import IMAGE_TOKEN, Turns

Message = dict[str, str]
_ROLES = ("user", "assistant")
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_MARK = re.compile("\ue000\\d+\ue001")
_THINK, _THOUGHT = "<think>", "</think>"
_MOST_SHAPES = 10_000
"""That are remembered; data has a few dozen."""


class _Shape(NamedTuple):
    """What is written around the texts of a conversation, and what of it is learnt with an answer."""

    pieces: list[str]
    """One more than there are texts."""
    before: list[int]
    """For each text that begins an answer, characters of the piece before it that are learnt; -1 for other texts."""
    after: list[int]
    """The same of the piece after a text that ends an answer."""


class ChatTemplate:
    """A tokenizer's chat template, as training and asking use it.

    Args:
        tokenizer: With a chat template that takes texts, `<image>` among them; not kept alive.

    Raises:
        ConfigError: It cannot say a question and its answer, ends an answer with no token of its own, or opens a
            thinking block that the data's answers do not close.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = proxy(tokenizer)  # which `_known` must not keep alive
        self._name = f"the chat template of `{getattr(tokenizer, 'name_or_path', '')}`"
        self._shapes: dict[tuple[bool, tuple[str, ...]], _Shape] = {}
        probe = _messages([_mark(number) for number in range(4)])
        try:
            said = [self._say(probe[:2]), self._say(probe)]
        except (TemplateError, TypeError, ValueError) as error:
            raise ConfigError(f"{self._name} cannot say a question and its answer: {error}") from error
        if [_MARK.findall(text) for text in said] != [[_mark(number) for number in range(n)] for n in (2, 4)]:
            raise ConfigError(
                f"{self._name} does not say questions and their answers once each; it says {said[0]!r:.300}"
            )
        opening = self._opening(probe[:1])[0]
        if opening.rfind(_THINK) > opening.rfind(_THOUGHT):
            raise ConfigError(
                f"{self._name} begins answers with `{_THINK}`, and the answers of the data do not think; name a "
                "template that does not in `model.chat_template`"
            )
        last, between = _MARK.split(said[0])[-1], _MARK.split(said[1])[2]
        if not self._end(last):
            raise ConfigError(
                f"{self._name} ends an answer with {last!r:.80}, for which its tokenizer has no token of its own: the "
                "model would never learn to stop; name another template in `model.chat_template`, or add the token"
            )
        self._generated = self._generated_after(probe[:2], said[0])
        ends = [end[1] for tail in (last, between) if (end := self._end(tail))]
        self.end_ids = list(dict.fromkeys(i for i in (*ends, tokenizer.eos_token_id) if i is not None))
        """Ids of the tokens that end an answer: the template's, and the tokenizer's own."""

    @classmethod
    def of(cls, tokenizer: Any) -> "ChatTemplate":
        """The same object for the same tokenizer, as long as its template stays.

        Raises:
            ConfigError: As for the class.
        """
        template, known = _known.get(tokenizer, (None, None))
        if known is None or template != tokenizer.chat_template:
            known = cls(tokenizer)
            _known[tokenizer] = (tokenizer.chat_template, known)
        return known

    def render(self, turns: Turns) -> tuple[str, list[tuple[int, int]]]:
        """A conversation, and the [start, end) characters of what is learnt of each answer.

        Args:
            turns: After a last one of the human the text ends with the generation prompt.

        Raises:
            DataError: The template refuses such a conversation, for example a system turn.
        """
        texts: list[str] = []
        system = [] if turns.system is None else [turns.system]
        contents = tuple(_with_marks(text, texts) for text in (*system, *turns.texts))
        key = (bool(system), contents)
        if key not in self._shapes:
            if len(self._shapes) >= _MOST_SHAPES:
                self._shapes.clear()
            try:
                self._shapes[key] = self._shape_of(_messages(contents, bool(system)))
            except (TemplateError, TypeError, ValueError) as error:
                raise DataError(f"{self._name} does not take such a conversation: {error}") from error
        shape = self._shapes[key]
        said, answers, start = shape.pieces[0], [], 0
        for text, before, after, piece in zip(texts, shape.before, shape.after, shape.pieces[1:], strict=True):
            start = len(said) - before if before >= 0 else start
            said += text
            if after >= 0 and len(said) > start and text:
                answers.append((start, len(said) + after))
            said += piece
        return said, answers

    def _shape_of(self, messages: list[Message]) -> _Shape:
        asked = messages[-1]["role"] == _ROLES[0]
        said = self._say(messages if not asked else [*messages, _message(1, _mark(-1))])
        pieces, marks = _MARK.split(said), [message["content"] for message in messages]
        wanted = [mark for content in marks for mark in _MARK.findall(content)]
        if _MARK.findall(said) != [*wanted, *([_mark(-1)] if asked else [])]:
            raise ValueError("it does not say each text once, in order")
        if sum(piece.count(IMAGE_TOKEN) for piece in pieces) != sum(content.count(IMAGE_TOKEN) for content in marks):
            raise ValueError(f"it does not say each {IMAGE_TOKEN} once")
        before, after = [-1] * len(wanted), [-1] * len(wanted)
        place = 0
        for number, message in enumerate(messages):
            first, place = place, place + len(_MARK.findall(message["content"]))
            if message["role"] == _ROLES[1]:
                pieces[first], before[first] = self._opening(messages[:number])
                after[place - 1] = self._num_learnt(pieces[place])
        if asked:
            opening, blanks = self._opening(messages)
            pieces[-2:] = [opening[: len(opening) - blanks]]
        return _Shape(pieces, before, after)

    def _opening(self, messages: list[Message]) -> tuple[str, int]:
        """What stands between a last question and its answer, and how many characters of that are the answer's.

        A generation prompt that lacks nothing but blanks leaves these to the answer (Mistral); one that lacks words is
        none, and what the template writes before an answer is the prompt.
        """
        number = len(_MARK.findall("".join(message["content"] for message in messages)))
        prompt = _MARK.split(self._say(messages, add_generation_prompt=True))[-1]
        between = _MARK.split(self._say([*messages, _message(1, _mark(number))]))[-2]
        if not between.startswith(prompt):
            return prompt, 0
        rest = between[len(prompt) :]
        return between, len(rest) if not rest.strip() else 0

    def _num_learnt(self, tail: str) -> int:
        """How many characters of what follows an answer are learnt with it."""
        end = self._end(tail)
        if end is None:
            return 0
        whole = len(self._generated) >= len(end[0]) and tail.startswith(self._generated)
        return len(self._generated) if whole else len(end[0])

    def _end(self, tail: str) -> tuple[str, int] | None:
        """What follows an answer up to the token that ends it, and that token's id; None where there is none."""
        known = {*self._tokenizer.all_special_ids, *self._tokenizer.get_added_vocab().values()}
        found = next((i for i in self._tokenizer.encode(tail, add_special_tokens=False) if i in known), None)
        if found is None:
            return None
        token = self._tokenizer.convert_ids_to_tokens(found)
        return tail[: tail.index(token) + len(token)], found

    def _generated_after(self, messages: list[Message], said: str) -> str:
        """What follows the answer in the template's `{% generation %}` block; empty without one."""
        from transformers.utils.chat_template_utils import render_jinja_template

        if not _GENERATION.search(self._tokenizer.chat_template):
            return ""
        rendered: Any = render_jinja_template(  # annotated with what it gives without the mask
            [messages],
            chat_template=self._tokenizer.chat_template,
            return_assistant_tokens_mask=True,
            **self._tokenizer.special_tokens_map,
        )
        _, spans = rendered
        return said[said.rindex(_mark(1)) + len(_mark(1)) : spans[0][-1][1]] if spans[0] else ""

    def _say(self, messages: Sequence[Message], **options: bool) -> str:
        said: str = self._tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
        return said


_known: "WeakKeyDictionary[Any, tuple[str, ChatTemplate]]" = WeakKeyDictionary()


def _mark(number: int) -> str:
    return f"\ue000{number if number >= 0 else 10**9}\ue001"


def _with_marks(content: str, texts: list[str]) -> str:
    """A turn with marks for what stands between its images, one at least; that is appended to `texts`."""
    before = len(texts)
    segments = content.split(IMAGE_TOKEN)
    for place, segment in enumerate(segments):
        said = segment.strip()  # blanks stay, so that the template does with them what it does
        if said or (place + 1 == len(segments) and len(texts) == before):
            start = segment.index(said)
            segments[place] = segment[:start] + _mark(len(texts)) + segment[start + len(said) :]
            texts.append(said)
    return IMAGE_TOKEN.join(segments)


def _message(number: int, content: str) -> Message:
    return {"role": _ROLES[number % 2], "content": content}


def _messages(contents: Sequence[str], has_system: bool = False) -> list[Message]:
    messages = [_message(number, content) for number, content in enumerate(contents[has_system:])]
    return [{"role": "system", "content": contents[0]}, *messages] if has_system else messages
