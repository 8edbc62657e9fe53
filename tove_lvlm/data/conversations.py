"""Conversations to token ids and labels, equal to LLaVA's `preprocess_plain` and `preprocess_v1` token for token.

LLaVA renders a conversation to one string, tokenises it, and then finds the answers by tokenising the pieces again
and counting. Where a piece tokenises differently alone than in place, the counts differ and LLaVA masks the whole
sample ("tokenization mismatch"). Here the string is tokenised once, exactly as LLaVA does it, and an answer's
tokens are those whose characters lie in the answer: there is nothing to mismatch.

An answer's label starts at the space after `ASSISTANT:` and ends with `</s>`, as in LLaVA.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .errors import DataError

IGNORE_INDEX = -100
"""Label of a position that takes no part in the loss."""

IMAGE_TOKEN_INDEX = -200
"""Stands for one whole image in encoded ids; no vocabulary has it. The collator expands it."""

IMAGE_TOKEN = "<image>"
"""Marks the place of the image in a conversation's text."""

VIDEO_TOKEN = "<video>"
"""The same of a video in other models' data."""

TRUE, FALSE = "true", "false"
STATEMENT = "{statement} true or false?"
"""How a statement is put to a base model, which then says TRUE or FALSE; our choice."""

ROLES = ("human", "gpt")
Conversation = Sequence[Mapping[str, str]]
Span = tuple[int, int]


class Encoded(NamedTuple):
    """Ids with IMAGE_TOKEN_INDEX for each image, and labels with IGNORE_INDEX where there is no loss; equal length."""

    input_ids: list[int]
    labels: list[int]


class Rendered(NamedTuple):
    """A conversation as one string, and the [start, end) characters of each answer in it, in order."""

    text: str
    answers: list[Span]


@dataclass(frozen=True, kw_only=True)
class Template:
    """How turns become a string."""

    name: str
    system: str = ""
    """Opening words."""
    roles: tuple[str, str] = ("", "")
    """What human and gpt are called in the prompt."""
    seps: tuple[str, str] = ("", "")
    """What ends a human and a gpt turn."""
    image_only: bool = False
    """A human turn is nothing but the image (LLaVA's stage 1)."""


TEMPLATES = {
    "plain": Template(name="plain", seps=("", "\n"), image_only=True),
    # LLaVA trains with these words; its demo's template `llava_v1` says "human" for "user".
    "v1": Template(
        name="v1",
        system="A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions. ",
        roles=("USER", "ASSISTANT"),
        seps=(" ", "</s>"),
    ),
}


def get_template(name: str) -> Template:
    """Look a template up.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in TEMPLATES:
        raise ValueError(f"unknown conversation template {name!r}; choose from {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def read_turns(conversation: Conversation, has_image: bool) -> list[tuple[str, str]]:
    """Check a LLaVA conversation and put its image token where LLaVA puts it: on a line before its turn's text.

    A leading gpt turn is dropped, as LLaVA does.

    Returns:
        (role, text) pairs that alternate human, gpt.

    Raises:
        DataError: empty, wrong types, wrong roles, or image tokens that do not fit the image.
    """
    if not isinstance(conversation, list | tuple) or not conversation:
        raise DataError("'conversations' must be a list with at least one turn")
    turns = []
    for number, turn in enumerate(conversation):
        if not isinstance(turn, Mapping) or not isinstance(turn.get("value"), str):
            raise DataError(f"turn {number} must be an object with the texts 'from' and 'value'")
        if turn.get("from") not in ROLES:
            raise DataError(f"turn {number} is from {turn.get('from')!r}; expected 'human' or 'gpt'")
        turns.append((turn["from"], _place_image(turn["value"])))
    skipped = turns[0][0] == "gpt"
    turns = turns[skipped:]
    if not turns:
        raise DataError("the conversation has no human turn")
    for number, (role, text) in enumerate(turns):
        if role != ROLES[number % 2]:
            raise DataError(f"turn {number + skipped} is from {role!r} after another {role!r}; they must alternate")
        if not text.isascii() and not _is_text(text):
            raise DataError(f"turn {number + skipped} holds half of a surrogate pair, which is not text")
    if any(VIDEO_TOKEN in text for _, text in turns):
        raise DataError(f"the text has {VIDEO_TOKEN}, and only images are read")
    num_places = sum(IMAGE_TOKEN in text for _, text in turns)
    if num_places and not has_image:
        raise DataError(f"the text has {IMAGE_TOKEN} but the sample has no image")
    if has_image and num_places != 1:
        raise DataError(f"the sample has one image but {num_places} of its turns have {IMAGE_TOKEN}")
    return turns


def render(template: Template, conversation: Conversation, has_image: bool) -> Rendered:
    """Write a conversation as LLaVA's `Conversation.get_prompt` does.

    An empty turn leaves only the role's name, without a separator, and is no answer to learn.

    Raises:
        DataError: as `read_turns`, and a conversation that does not fit the template `plain`.
    """
    turns = read_turns(conversation, has_image)
    if template.image_only:
        return _render_plain(template, turns)
    text, answers = template.system, []
    for number, (_, value) in enumerate(turns):
        side = number % 2
        text += template.roles[side] + ":"
        start = len(text)
        if value:
            text += " " + value + template.seps[side]
            if side == 1:
                answers.append((start, len(text)))
    return Rendered(text, answers)


def encode(tokenizer: Any, conversation: Conversation, template: str, has_image: bool | None = None) -> Encoded:
    """Encode a training conversation.

    Args:
        tokenizer: a transformers tokenizer; one with character offsets ("fast") takes one pass.
        conversation: turns `{"from": "human" | "gpt", "value": text}`.
        template: name of a template.
        has_image: whether the sample has an image; None: whether its text says so.

    Raises:
        DataError: the conversation is not valid.
        ValueError: unknown template, or a tokenizer without offsets that merges across the start of an answer.
    """
    if has_image is None:
        has_image = _mentions_image(conversation)
    rendered = render(get_template(template), conversation, has_image)
    return _tokenize(tokenizer, rendered)


def encode_v1(tokenizer: Any, conversation: Conversation, has_image: bool | None = None) -> Encoded:
    """`encode` with Vicuna's template, that of stage 2."""
    return encode(tokenizer, conversation, "v1", has_image)


def rounds(conversation: Conversation) -> list[tuple[str, str]]:
    """Questions and answers about one image, without the image's token; the first question may be empty.

    Raises:
        DataError: The conversation is not valid, or an answer is missing.
    """
    texts = [text.replace(IMAGE_TOKEN, "").strip() for _, text in read_turns(conversation, has_image=True)]
    pairs = list(zip(texts[::2], texts[1::2], strict=False))
    if len(texts) % 2 or not all(answer for _, answer in pairs):
        raise DataError("the conversation has no answer to learn from" if not pairs else "a question has no answer")
    return pairs


def build_prompt(messages: Conversation, template: str = "v1") -> str:
    """The string after which a model writes its answer.

    Args:
        messages: turns that end with a human one; at most one of them has the image token.
        template: name of a template.

    Raises:
        DataError: wrong roles, or the last turn is not the human's.
        ValueError: unknown template.
    """
    chosen = get_template(template)
    has_image = _mentions_image(messages)
    turns = read_turns(messages, has_image)
    if turns[-1][0] != "human":
        raise DataError("a prompt must end with a human turn")
    if chosen.image_only:
        return IMAGE_TOKEN
    return render(chosen, messages, has_image).text + chosen.roles[1] + ":"


def encode_prompt(tokenizer: Any, messages: Conversation, template: str = "v1") -> list[int]:
    """Ids of `build_prompt`, with IMAGE_TOKEN_INDEX for the image."""
    return _tokenize(tokenizer, Rendered(build_prompt(messages, template), [])).input_ids


def expand_image_tokens(values: Sequence[int], input_ids: Sequence[int], fill: int, count: int) -> list[int]:
    """Replace, in a list that runs along `input_ids`, what stands at each image by `count` times `fill`."""
    expanded: list[int] = []
    for value, token in zip(values, input_ids, strict=True):
        if token == IMAGE_TOKEN_INDEX:
            expanded.extend([fill] * count)
        else:
            expanded.append(value)
    return expanded


def _mentions_image(conversation: Conversation) -> bool:
    return any(isinstance(turn, Mapping) and IMAGE_TOKEN in str(turn.get("value")) for turn in conversation)


def _place_image(text: str) -> str:
    if IMAGE_TOKEN not in text:
        return text
    text = text.replace(IMAGE_TOKEN, "").strip()
    return f"{IMAGE_TOKEN}\n{text}".strip()


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _render_plain(template: Template, turns: list[tuple[str, str]]) -> Rendered:
    if len(turns) != 2 or IMAGE_TOKEN not in turns[0][1]:
        raise DataError(
            f"the template {template.name!r} wants one human turn with {IMAGE_TOKEN} and one gpt turn, "
            f"got {len(turns)} turns"
        )
    text = IMAGE_TOKEN + turns[1][1] + template.seps[1]
    return Rendered(text, [(len(IMAGE_TOKEN), len(text))])


def _tokenize(tokenizer: Any, rendered: Rendered) -> Encoded:
    """LLaVA's `tokenizer_image_token`: pieces between images are tokenised apart, only the first keeps its BOS."""
    input_ids: list[int] = []
    labels: list[int] = []
    base = 0
    drop = 0
    for number, piece in enumerate(rendered.text.split(IMAGE_TOKEN)):
        answers = [(max(start - base, 0), end - base) for start, end in rendered.answers if end > base]
        ids, learn = _tokenize_piece(tokenizer, piece, answers)
        if number == 0:
            drop = int(bool(ids) and ids[0] == tokenizer.bos_token_id)
            input_ids += ids[:drop]
            labels += [IGNORE_INDEX] * drop
        else:
            input_ids.append(IMAGE_TOKEN_INDEX)
            labels.append(IGNORE_INDEX)
        input_ids += ids[drop:]
        labels += [token if learned else IGNORE_INDEX for token, learned in zip(ids[drop:], learn[drop:], strict=True)]
        base += len(piece) + len(IMAGE_TOKEN)
    return Encoded(input_ids, labels)


def _tokenize_piece(tokenizer: Any, piece: str, answers: list[Span]) -> tuple[list[int], list[bool]]:
    """Ids of a piece of text, and for each whether it lies wholly in an answer."""
    if not getattr(tokenizer, "is_fast", False):
        ids = list(tokenizer(piece).input_ids)
        return ids, _answers_by_prefix(tokenizer, piece, ids, answers)
    tokens = tokenizer(piece, return_offsets_mapping=True, verbose=False)
    starts = [start for start, _ in answers]
    learn = []
    for start, end in tokens["offset_mapping"]:
        which = bisect_right(starts, start) - 1
        # BOS covers no characters.
        learn.append(start < end and which >= 0 and end <= answers[which][1])
    return list(tokens["input_ids"]), learn


def _answers_by_prefix(tokenizer: Any, piece: str, ids: list[int], answers: list[Span]) -> list[bool]:
    """Without offsets: an answer starts after as many tokens as the text before it has, which is checked."""
    learn = [False] * len(ids)
    for start, end in answers:
        bounds = []
        for position in (start, min(end, len(piece))):
            before = list(tokenizer(piece[:position]).input_ids)
            if ids[: len(before)] != before:
                raise ValueError(
                    f"{type(tokenizer).__name__} merges text across the edge of an answer and gives no character "
                    f"offsets; use a fast tokenizer"
                )
            bounds.append(len(before))
        learn[bounds[0] : bounds[1]] = [True] * (bounds[1] - bounds[0])
    return learn
