"""Conversations to token ids and labels, equal to LLaVA's `preprocess_plain` and `preprocess_v1` token for token.

LLaVA renders a conversation to one string, tokenises it, and then finds the answers by tokenising the pieces again
and counting. Where a piece tokenises differently alone than in place, the counts differ and LLaVA masks the whole
sample ("tokenization mismatch"). Here the string is tokenised once, exactly as LLaVA does it, and an answer's
tokens are those whose characters lie in the answer: there is nothing to mismatch.

An answer's label starts at the space after `ASSISTANT:` and ends with `</s>`, as in LLaVA. The template `chat` is the
tokenizer's own, see `chat_template`.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from jinja2 import TemplateError

from ..config.model import PLAIN_TEMPLATE, V1_TEMPLATE
from .chat_template import ChatTemplate
from .errors import DataError
from .turns import IMAGE_TOKEN, Conversation, Turns, mentions_image, read_turns

IGNORE_INDEX = -100
"""Label of a position that takes no part in the loss."""

IMAGE_TOKEN_INDEX = -200
"""Stands for one whole image in encoded ids; no vocabulary has it. The collator expands it."""

PLAIN, V1, CHAT = PLAIN_TEMPLATE, V1_TEMPLATE, "chat"
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
    PLAIN: Template(name=PLAIN, seps=("", "\n"), image_only=True),
    # LLaVA trains with these words; its demo's template `llava_v1` says "human" for "user".
    V1: Template(
        name=V1,
        system="A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions. ",
        roles=("USER", "ASSISTANT"),
        seps=(" ", "</s>"),
    ),
}


def get_template(name: str) -> Template:
    """Look a template of LLaVA's up.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in TEMPLATES:
        raise ValueError(f"unknown conversation template {name!r}; choose from {', '.join([*TEMPLATES, CHAT])}")
    return TEMPLATES[name]


def template_of(tokenizer: Any) -> str:
    """The template of stage 2, and of asking: V1 without a chat template or with one of its roles, else CHAT.

    Args:
        tokenizer: Of a language model, or of a trained model, whose chat template is what it was trained with.
    """
    if not getattr(tokenizer, "chat_template", None):
        return V1
    try:
        probe = [{"role": "user", "content": "?"}]
        said = tokenizer.apply_chat_template(probe, tokenize=False, add_generation_prompt=True)
    except (TemplateError, TypeError, ValueError):
        return CHAT  # which says what is wrong with it
    return V1 if all(f"{role}:" in said for role in TEMPLATES[V1].roles) else CHAT


def end_ids(tokenizer: Any) -> list[int]:
    """Ids of the tokens that end an answer.

    Args:
        tokenizer: As for `template_of`.
    """
    return ChatTemplate.of(tokenizer).end_ids if template_of(tokenizer) == CHAT else [tokenizer.eos_token_id]


def render(template: Template, conversation: Conversation, num_images: int) -> Rendered:
    """Write a conversation as LLaVA's `Conversation.get_prompt` does.

    An empty turn leaves only the role's name, without a separator, and is no answer to learn.

    Raises:
        DataError: as `read_turns`, and a conversation that does not fit the template `plain`.
    """
    turns = read_turns(conversation, num_images)
    if template.image_only:
        return _render_plain(template, turns)
    text, answers = template.system if turns.system is None else f"{turns.system.strip()} ", []
    for number, value in enumerate(turns.texts):
        side = number % 2
        text += template.roles[side] + ":"
        start = len(text)
        if value:
            text += " " + value + template.seps[side]
            if side == 1:
                answers.append((start, len(text)))
    return Rendered(text, answers)


def has_answer(conversation: Conversation, num_images: int, template: str = V1) -> bool:
    """Whether a conversation has an answer to learn.

    Args:
        conversation: Whatever stands in the data.
        num_images: Of the sample.
        template: Name of a template.

    Raises:
        DataError: It is no conversation, or does not fit the template `plain`.
    """
    if template == PLAIN:
        return bool(render(get_template(template), conversation, num_images).answers)
    return any(read_turns(conversation, num_images).texts[1::2])


def encode(tokenizer: Any, conversation: Conversation, template: str, num_images: int | None = None) -> Encoded:
    """Encode a training conversation.

    Args:
        tokenizer: a transformers tokenizer; one with character offsets ("fast") takes one pass.
        conversation: turns `{"from": "human" | "gpt", "value": text}`.
        template: name of a template.
        num_images: how many images the sample has; None: one if its text says so.

    Raises:
        DataError: the conversation is not valid.
        ValueError: unknown template, or a tokenizer without offsets that merges across the start of an answer.
    """
    if num_images is None:
        num_images = int(mentions_image(conversation))
    if template == CHAT:
        said, answers = ChatTemplate.of(tokenizer).render(read_turns(conversation, num_images))
        return _tokenize_whole(tokenizer, Rendered(said, answers))
    return _tokenize(tokenizer, render(get_template(template), conversation, num_images))


def encode_v1(tokenizer: Any, conversation: Conversation, num_images: int | None = None) -> Encoded:
    """`encode` with Vicuna's template."""
    return encode(tokenizer, conversation, V1, num_images)


def build_prompt(messages: Conversation, template: str = V1, num_images: int | None = None) -> str:
    """The string after which a model writes its answer.

    Args:
        messages: turns that end with a human one.
        template: name of a template of LLaVA's.
        num_images: how many images they are about; None: one if their text says so.

    Raises:
        DataError: wrong roles, or the last turn is not the human's.
        ValueError: unknown template.
    """
    chosen = get_template(template)
    num_images = int(mentions_image(messages)) if num_images is None else num_images
    _read_prompt(messages, num_images)
    if chosen.image_only:
        return IMAGE_TOKEN * max(1, num_images)
    return render(chosen, messages, num_images).text + chosen.roles[1] + ":"


def encode_prompt(
    tokenizer: Any, messages: Conversation, template: str = V1, num_images: int | None = None
) -> list[int]:
    """Ids of what `build_prompt` gives, or of the same in the template CHAT, with IMAGE_TOKEN_INDEX for each image."""
    if template == CHAT:
        num_images = int(mentions_image(messages)) if num_images is None else num_images
        said, _ = ChatTemplate.of(tokenizer).render(_read_prompt(messages, num_images))
        return _tokenize_whole(tokenizer, Rendered(said, [])).input_ids
    return _tokenize(tokenizer, Rendered(build_prompt(messages, template, num_images), [])).input_ids


def expand_image_tokens(values: Sequence[int], input_ids: Sequence[int], fill: int, count: int) -> list[int]:
    """Replace, in a list that runs along `input_ids`, what stands at each image by `count` times `fill`."""
    expanded: list[int] = []
    for value, token in zip(values, input_ids, strict=True):
        if token == IMAGE_TOKEN_INDEX:
            expanded.extend([fill] * count)
        else:
            expanded.append(value)
    return expanded


def _read_prompt(messages: Conversation, num_images: int) -> Turns:
    turns = read_turns(messages, num_images)
    if not len(turns.texts) % 2:
        raise DataError("a prompt must end with a human turn")
    return turns


def _render_plain(template: Template, turns: Turns) -> Rendered:
    texts = turns.texts
    if len(texts) != 2 or IMAGE_TOKEN not in texts[0]:
        raise DataError(
            f"the template {template.name!r} wants one human turn with {IMAGE_TOKEN} and one gpt turn, "
            f"got {len(texts)} turns"
        )
    text = IMAGE_TOKEN * texts[0].count(IMAGE_TOKEN) + texts[1] + template.seps[1]
    return Rendered(text, [(len(text) - len(texts[1]) - len(template.seps[1]), len(text))])


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


def _tokenize_whole(tokenizer: Any, rendered: Rendered) -> Encoded:
    """As transformers does it: one text, in which the template has put the BOS, and `<image>` is a token.

    Where blanks meet at the beginning of an answer, a token could reach over it: the text is parted there, because the
    model is asked with just what stands before.
    """
    image, text = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN), rendered.text
    parts = [start for start, end in rendered.answers if _blanks_meet(text[start - 1 : start], text[start:end])]
    ids: list[int] = []
    learn: list[bool] = []
    for start, end in pairwise((0, *parts, len(text))):
        answers = [(begin - start, stop - start) for begin, stop in rendered.answers if start <= begin < end]
        more = _tokenize_piece(tokenizer, text[start:end], answers, add_special_tokens=False)
        ids, learn = ids + more[0], learn + more[1]
    labels = [token if learned else IGNORE_INDEX for token, learned in zip(ids, learn, strict=True)]
    return Encoded([IMAGE_TOKEN_INDEX if token == image else token for token in ids], labels)


def _blanks_meet(before: str, after: str) -> bool:
    """Whether a tokenizer could join a character to what follows it: a blank to a word, a line's end to another."""
    return before.isspace() and (before != "\n" or after[:1].isspace())


def _tokenize_piece(tokenizer: Any, piece: str, answers: list[Span], **options: bool) -> tuple[list[int], list[bool]]:
    """Ids of a piece of text, and for each whether it lies wholly in an answer."""
    if not getattr(tokenizer, "is_fast", False):
        ids = list(tokenizer(piece, **options).input_ids)
        return ids, _answers_by_prefix(tokenizer, piece, ids, answers, **options)
    tokens = tokenizer(piece, return_offsets_mapping=True, verbose=False, **options)
    starts = [start for start, _ in answers]
    learn = []
    for start, end in tokens["offset_mapping"]:
        which = bisect_right(starts, start) - 1
        # BOS covers no characters.
        learn.append(start < end and which >= 0 and end <= answers[which][1])
    return list(tokens["input_ids"]), learn


def _answers_by_prefix(tokenizer: Any, piece: str, ids: list[int], answers: list[Span], **options: bool) -> list[bool]:
    """Without offsets: an answer starts after as many tokens as the text before it has, which is checked."""
    learn = [False] * len(ids)
    for start, end in answers:
        bounds = []
        for position in (start, min(end, len(piece))):
            before = list(tokenizer(piece[:position], **options).input_ids)
            if ids[: len(before)] != before:
                raise ValueError(
                    f"{type(tokenizer).__name__} merges text across the edge of an answer and gives no character "
                    f"offsets; use a fast tokenizer"
                )
            bounds.append(len(before))
        learn[bounds[0] : bounds[1]] = [True] * (bounds[1] - bounds[0])
    return learn
