"""What happens when a question is asked, an expert is switched, or a picture is chosen: the page's values, without any
component.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import words
from .desk import Desk
from .gate_view import gate_json
from .links import State, to_query
from .pictures import Example
from .requests import Answer, Ask, Failed, Look, Seen, Text

History = list[dict[str, Any]]
"""Messages as gradio's chatbot has them: `role` and `content`."""
NO_PICTURE = "Choose a picture first."
NO_QUESTION = "Type a question first."


class Asked(NamedTuple):
    """What a question changes on the page."""

    history: History
    question: str | None
    """What stands in the box afterwards; None leaves what somebody may be typing there."""
    stats: str
    status: str
    link: str


class Looked(NamedTuple):
    """What a picture or a switch changes."""

    gate: str
    stats: str
    status: str
    link: str


class Asking:
    """Answers the page's visitors.

    Args:
        desk: Asks the models.
        examples: That are offered.
    """

    def __init__(self, desk: Desk, examples: Sequence[Example]):
        self.desk, self.examples = desk, list(examples)

    def ask(
        self,
        model: int,
        picture: str | None,
        example: str,
        question: str,
        history: History,
        attached: Sequence[str],
        max_new_tokens: float,
        visitor: str,
    ) -> Iterator[Asked]:
        """The conversation as it grows.

        Args:
            model: Number of the model.
            picture: File; None where there is none.
            example: Its name, if it is one.
            question: As typed.
            history: What was said before.
            attached: Experts that are switched on.
            max_new_tokens: Longest answer.
            visitor: Gradio's session.
        """
        detached = self.detached(model, attached)
        link = to_query(State(model=model, example=example, question=question, detached=detached), self.desk.models)
        reason = NO_PICTURE if not picture else NO_QUESTION if not question.strip() else ""
        if reason or picture is None:
            yield Asked(history, question, words.stats(None), words.status(reason, is_failure=True), link)
            return
        earlier = pairs(history)
        if not self.desk.models[model].keeps_conversation:
            earlier = []
        asked = [*history, {"role": "user", "content": question}]
        stats = words.stats(None)
        yield Asked(asked, "", stats, words.status("The model is reading ..."), link)
        request = Ask(
            model=model,
            picture=Path(picture),
            question=question,
            earlier=tuple(earlier),
            detached=detached,
            max_new_tokens=int(max_new_tokens),
        )
        for event in self.desk.run(request, visitor):
            match event:
                case Text(text=text):
                    said = {"role": "assistant", "content": text}
                    yield Asked([*asked, said], None, stats, words.status("The model is answering ..."), link)
                case Answer():
                    said = {"role": "assistant", "content": event.text or "(an empty answer)"}
                    line = "Cancelled." if event.cancelled else ""
                    yield Asked([*asked, said], None, words.stats(event), words.status(line), link)
                case Failed(message=message):
                    yield Asked(history, question, stats, words.status(message, is_failure=True), link)

    def again(
        self,
        model: int,
        picture: str | None,
        example: str,
        history: History,
        attached: Sequence[str],
        max_new_tokens: float,
        visitor: str,
    ) -> Iterator[Asked]:
        """The last question once more, after an expert was switched; nothing where none was asked."""
        asked = pairs(history)
        if not asked or not picture:
            return
        before = _messages(asked[:-1])
        question = asked[-1][0]
        for changed in self.ask(model, picture, example, question, before, attached, max_new_tokens, visitor):
            yield changed._replace(question=None)

    def look(
        self,
        model: int,
        picture: str | None,
        example: str,
        history: History,
        attached: Sequence[str],
        visitor: str,
    ) -> Looked:
        """What the tower makes of the picture with these experts."""
        detached, asked = self.detached(model, attached), pairs(history)
        question = asked[-1][0] if asked else ""
        link = to_query(State(model=model, example=example, question=question, detached=detached), self.desk.models)
        if not picture:
            return Looked("", words.stats(None), words.status(""), link)
        event = self.desk.last(Look(model=model, picture=Path(picture), detached=detached), visitor)
        if isinstance(event, Seen):
            name = example or "your picture"
            return Looked(gate_json(event, name), words.stats(event), words.status(""), link)
        message = event.message if isinstance(event, Failed) else "nothing was seen"
        return Looked("", words.stats(None), words.status(message, is_failure=True), link)

    def detached(self, model: int, attached: Sequence[str]) -> tuple[str, ...]:
        """Experts that are switched off."""
        return tuple(name for name in self.desk.models[model].experts if name not in attached)

    def example_path(self, name: str) -> str | None:
        """The file of an example; None where there is none of that name."""
        return next((str(example.path) for example in self.examples if example.name == name), None)


def pairs(history: History) -> list[tuple[str, str]]:
    """Questions and answers of a conversation; a question that was not answered is left out."""
    found: list[tuple[str, str]] = []
    question = None
    for message in history:
        text = _text(message["content"])
        if message["role"] == "user":
            question = text
        elif question is not None:
            found.append((question, text))
            question = None
    return found


def _text(content: Any) -> str:
    """Of a message: gradio gives back a list of parts."""
    if isinstance(content, list):
        return "".join(_text(part) for part in content)
    return str(content["text"]) if isinstance(content, dict) else str(content)


def _messages(asked: Sequence[tuple[str, str]]) -> History:
    return [
        {"role": role, "content": text}
        for pair in asked
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
