"""Paging through the questions of a benchmark about which several models disagree. No model is asked."""

from collections.abc import Callable
from html import escape
from typing import NamedTuple

from ..data.errors import DataError
from ..eval.disagreements import Question, Reply, SideBySide
from ..viz.embedding import file_address
from .components import gr
from .events import AT_ONCE

EVERYTHING = "all"
DISPUTED = "models disagree"
_SIDE = 512
"""Longest side of a picture as it is shown."""


class Page(NamedTuple):
    """What is shown."""

    place: int
    """Number of the question among those that were chosen."""
    counter: str
    shown: str


class Paging:
    """The tab.

    Args:
        runs: Questions and replies.
    """

    def __init__(self, runs: SideBySide):
        self._runs = runs
        first, *others = runs.runs
        self.kinds: dict[str, Callable[[Question], bool]] = {
            DISPUTED: lambda question: question.is_disputed,
            **{f"{first} right, {name} wrong": _only_right(0, k) for k, name in enumerate(others, 1)},
            **{f"{name} right, {first} wrong": _only_right(k, 0) for k, name in enumerate(others, 1)},
            "all are wrong": lambda question: all(reply.is_right is False for reply in question.replies),
            "every question": lambda question: True,
        }
        self.groups = [EVERYTHING, *runs.groups()]
        self._chosen: dict[tuple[str, str], list[Question]] = {}

    def chosen(self, kind: str, group: str) -> list[Question]:
        """The questions of a kind in a part of the benchmark.

        Args:
            kind: One of `kinds`.
            group: One of `groups`.
        """
        key = (kind, group)
        if key not in self._chosen:
            fits = self.kinds[kind]
            self._chosen[key] = [
                question
                for question in self._runs.questions
                if group in (EVERYTHING, question.group) and fits(question)
            ]
        return self._chosen[key]

    def show(self, kind: str, group: str, place: int) -> Page:
        """One question; the first comes after the last.

        Args:
            kind: One of `kinds`.
            group: One of `groups`.
            place: Among `chosen`.
        """
        found = self.chosen(kind, group)
        if not found:
            return Page(0, "0 of 0", '<p class="tove-status">There is no such question.</p>')
        place %= len(found)
        return Page(place, f"{place + 1:,} of {len(found):,}", self._html(found[place]))

    def build(self) -> None:
        """Put the tab's parts where gradio is building."""
        with gr.Row():
            kind = gr.Dropdown(list(self.kinds), value=DISPUTED, label="Show", elem_id="tove-dis-kind")
            group = gr.Dropdown(self.groups, value=EVERYTHING, label="Part", visible=len(self.groups) > 1)
        with gr.Row():
            back = gr.Button("Previous", min_width=70, elem_id="tove-dis-previous")
            counter = gr.Textbox(label="Question", interactive=False, min_width=90, elem_id="tove-dis-counter")
            forth = gr.Button("Next", variant="primary", min_width=70, elem_id="tove-dis-next")
        place = gr.State(0)
        first = self.show(DISPUTED, EVERYTHING, 0)
        counter.value = first.counter
        shown = gr.HTML(first.shown, elem_id="tove-dis-shown", min_height=360)
        outputs = [place, counter, shown]
        back.click(lambda a, b, n: tuple(self.show(a, b, n - 1)), [kind, group, place], outputs, **AT_ONCE)
        forth.click(lambda a, b, n: tuple(self.show(a, b, n + 1)), [kind, group, place], outputs, **AT_ONCE)
        for chosen in (kind, group):
            chosen.input(lambda a, b: tuple(self.show(a, b, 0)), [kind, group], outputs, **AT_ONCE)

    def _html(self, question: Question) -> str:
        rows = "".join(
            f"<tr><th scope='row'>{escape(name)}</th><td>{_verdict(reply)}</td><td>{_said(reply)}</td></tr>"
            for name, reply in zip(self._runs.runs, question.replies, strict=True)
        )
        part = f", {escape(question.group)}" if question.group else ""
        return (
            f'<div class="tove-disagreement"><div>{self._picture(question)}</div><div>'
            f"<p><strong>{escape(question.text)}</strong></p>"
            f"<p>Right answer: <strong>{escape(question.gold) or 'not public'}</strong></p>"
            f'<table class="tove-table"><thead><tr><th scope="col">Model</th><th scope="col">Verdict</th>'
            f'<th scope="col">Answer</th></tr></thead><tbody>{rows}</tbody></table>'
            f'<p class="tove-hint">{escape(self._runs.task)}, question {escape(question.question_id)}{part}</p>'
            "</div></div>"
        )

    def _picture(self, question: Question) -> str:
        if not question.image:
            return '<p class="tove-missing">This question has no picture.</p>'
        try:
            address = file_address(self._runs.images, question.image, _SIDE)
        except DataError as error:
            return f'<p class="tove-missing">{escape(str(error))}</p>'
        return f'<img src="{address}" alt="{escape(question.image)}">'


def _only_right(one: int, other: int) -> Callable[[Question], bool]:
    return lambda question: question.replies[one].is_right is True and question.replies[other].is_right is False


def _verdict(reply: Reply) -> str:
    if reply.is_right is None:
        return "-"
    soft = "" if reply.accuracy in (0.0, 1.0) else f" ({100 * (reply.accuracy or 0):.0f} %)"
    word = "right" if reply.is_right else "wrong"
    return f'<span class="tove-{word}">{word}{soft}</span>'


def _said(reply: Reply) -> str:
    return "<em>no answer</em>" if reply.text is None else escape(reply.text) or "<em>empty</em>"
