"""The page's state in its address, so that a colleague with the same models sees the same.

`?model=tove&picture=000003.png&ask=What+is+left%3F&off=edges,depth`
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from .pictures import Example
from .requests import ModelAbout

MAX_QUESTION = 1000
"""Characters of a question, in an address and on the page."""


@dataclass(frozen=True, kw_only=True)
class State:
    """What an address says."""

    model: int = 0
    example: str = ""
    """Name of an example; empty for a picture of the user's own, which is in no address."""
    question: str = ""
    detached: tuple[str, ...] = ()


def to_query(state: State, models: Sequence[ModelAbout]) -> str:
    """The part of an address after and with its question mark.

    Args:
        state: What is shown.
        models: In their order.
    """
    fields = {"model": models[state.model].name} if len(models) > 1 else {}
    fields |= {"picture": state.example} if state.example else {}
    fields |= {"ask": state.question[:MAX_QUESTION]} if state.question else {}
    fields |= {"off": ",".join(state.detached)} if state.detached else {}
    return "?" + urlencode(fields, safe=",")


def from_query(query: Mapping[str, str], models: Sequence[ModelAbout], examples: Sequence[Example]) -> State:
    """What an address says; what is not known here is left out.

    Args:
        query: Names and values, decoded.
        models: In their order.
        examples: That are offered.
    """
    names = [model.name for model in models]
    number = names.index(query["model"]) if query.get("model") in names else 0
    wanted = query.get("picture", "")
    off = query.get("off", "").split(",")
    return State(
        model=number,
        example=wanted if wanted in {example.name for example in examples} else "",
        question=query.get("ask", "")[:MAX_QUESTION],
        detached=tuple(name for name in models[number].experts if name in off),
    )
