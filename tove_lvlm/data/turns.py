"""The turns of a LLaVA conversation, checked."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .errors import DataError

IMAGE_TOKEN = "<image>"
"""Marks the place of the image in a conversation's text."""

VIDEO_TOKEN = "<video>"
"""The same of a video in other models' data."""

TRUE, FALSE = "true", "false"
STATEMENT = "{statement} true or false?"
"""How a statement is put to a base model, which then says TRUE or FALSE; our choice."""

ROLES = ("human", "gpt")
SYSTEM = "system"
Conversation = Sequence[Mapping[str, str]]


class Turns(NamedTuple):
    """What is said in a conversation."""

    texts: list[str]
    """Of the human and the model in turn, the human first."""
    system: str | None = None
    """What a system turn before them says; None where there is none."""


def read_turns(conversation: Conversation, num_images: int) -> Turns:
    """Check a LLaVA conversation and put its image token where LLaVA puts it: on a line before its turn's text.

    Several image tokens of a turn stay where they are, as in LLaVA-NeXT. A leading gpt turn is dropped, as LLaVA does.

    Args:
        conversation: Turns `{"from": "human" | "gpt", "value": text}`; the first may be from `system`.
        num_images: Of the sample.

    Raises:
        DataError: empty, wrong types, wrong roles, or image tokens that do not fit the image.
    """
    if not isinstance(conversation, list | tuple) or not conversation:
        raise DataError("'conversations' must be a list with at least one turn")
    turns = []
    for number, turn in enumerate(conversation):
        if not isinstance(turn, Mapping) or not isinstance(turn.get("value"), str):
            raise DataError(f"turn {number} must be an object with the texts 'from' and 'value'")
        if turn.get("from") not in ROLES and not (number == 0 and turn.get("from") == SYSTEM):
            raise DataError(f"turn {number} is from {turn.get('from')!r}; expected 'human' or 'gpt'")
        turns.append((turn["from"], _place_image(turn["value"], num_images)))
    system = turns[0][1] if turns[0][0] == SYSTEM else None
    skipped = int(system is not None)
    skipped += len(turns) > skipped and turns[skipped][0] == "gpt"
    turns = turns[skipped:]
    if not turns:
        raise DataError("the conversation has no human turn")
    for number, (role, text) in enumerate(turns):
        if role != ROLES[number % 2]:
            raise DataError(f"turn {number + skipped} is from {role!r} after another {role!r}; they must alternate")
        if not text.isascii() and not _is_text(text):
            raise DataError(f"turn {number + skipped} holds half of a surrogate pair, which is not text")
    _check_places([text for _, text in turns], system, num_images)
    return Turns([text for _, text in turns], system)


def mentions_image(conversation: Conversation) -> bool:
    """Whether some text of a conversation, checked or not, has the image's token."""
    return any(isinstance(turn, Mapping) and IMAGE_TOKEN in str(turn.get("value")) for turn in conversation)


def rounds(conversation: Conversation) -> list[tuple[str, str]]:
    """Questions and answers about one image, without the image's token; the first question may be empty.

    Raises:
        DataError: The conversation is not valid, or an answer is missing.
    """
    texts = [text.replace(IMAGE_TOKEN, "").strip() for text in read_turns(conversation, num_images=1).texts]
    pairs = list(zip(texts[::2], texts[1::2], strict=False))
    if len(texts) % 2 or not all(answer for _, answer in pairs):
        raise DataError("the conversation has no answer to learn from" if not pairs else "a question has no answer")
    return pairs


def _check_places(texts: list[str], system: str | None, num_images: int) -> None:
    if any(VIDEO_TOKEN in text for text in texts):
        raise DataError(f"the text has {VIDEO_TOKEN}, and only images are read")
    if IMAGE_TOKEN in (system or "") or (system is not None and not _is_text(system)):
        raise DataError(f"the system turn has {IMAGE_TOKEN}, or is no text")
    num_places = sum(text.count(IMAGE_TOKEN) for text in texts)
    if num_places and not num_images:
        raise DataError(f"the text has {IMAGE_TOKEN} but the sample has no image")
    if num_images == 1 and num_places != 1:
        raise DataError(f"the sample has one image but {num_places} of its turns have {IMAGE_TOKEN}")
    if num_places != num_images:
        raise DataError(f"the sample has {num_images} images but its text has {num_places} times {IMAGE_TOKEN}")


def _place_image(text: str, num_images: int) -> str:
    """One place moves to the front, and where the sample has one image, all places of a turn are that."""
    num_places = text.count(IMAGE_TOKEN)
    if not num_places or (num_places > 1 and num_images > 1):
        return text
    text = text.replace(IMAGE_TOKEN, "").strip()
    return f"{IMAGE_TOKEN}\n{text}".strip()


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
