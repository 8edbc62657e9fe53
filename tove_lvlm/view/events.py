"""What happens when a part of the page is used: `Asking` does it, here it is wired to gradio's components."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from . import words
from .ask import Asked, Asking
from .components import gr
from .links import from_query
from .parts import Choices, Talk
from .pictures import Example

QUEUED = {"concurrency_limit": 1, "concurrency_id": "model", "show_progress": "minimal", "api_visibility": "private"}
"""How everything that asks a model runs: one after the other, with its place in line shown."""
AT_ONCE = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""How everything else does."""
_SHOW_LINK = "(query) => { history.replaceState(null, '', query || location.pathname) }"
_SAY_READY = "() => { document.body.dataset.tove = 'ready' }"
"""When all that the address asks for is shown; for who drives the page by a program."""


def changes(asked: Iterable[Asked]) -> Iterator[tuple[Any, ...]]:
    """For gradio, which empties what it is told nothing of: None leaves a part as it is, and so does no change at all.

    Args:
        asked: What changes, one after the other.
    """
    changed = False
    for one in asked:
        changed = True
        yield tuple(gr.skip() if value is None else value for value in one)
    if not changed:
        yield tuple(gr.skip() for _ in Asked._fields)


def visitor(request: Any) -> str:
    """Who uses the page: gradio's session."""
    return request.session_hash or ""


class Events:
    """Connects the parts of the page, where gradio is building.

    Args:
        asking: Answers.
        examples: Pictures that are offered.
        choices: The left side.
        talk: The first tab.
    """

    def __init__(self, asking: Asking, examples: Sequence[Example], choices: Choices, talk: Talk):
        self._asking, self._examples, self._choices, self._talk = asking, list(examples), choices, talk
        self._models = asking.desk.models
        self._example, self._link = gr.State(""), gr.Textbox("", visible="hidden", elem_id="tove-link")
        about = [choices.model, choices.picture, self._example]
        self._ask_inputs = [*about, talk.question, talk.chatbot, choices.experts, talk.max_new_tokens]
        self._again_inputs = [*about, talk.chatbot, choices.experts, talk.max_new_tokens]
        self._look_inputs = [*about, talk.chatbot, choices.experts]
        self._asked = [talk.chatbot, talk.question, talk.stats, talk.status, self._link]
        self._looked = [talk.gate, talk.stats, talk.status, self._link]
        self._showing = {"show_progress_on": [talk.chatbot], **QUEUED}

    def connect(self, page: Any) -> None:
        """All of them.

        Args:
            page: Gradio's `Blocks`.
        """
        self._connect_talk()
        self._connect_pictures()
        self._connect_switches()
        self._connect_address(page)

    def _connect_talk(self) -> None:
        def ask(model, picture, example, question, history, attached, tokens, request: gr.Request):
            who = visitor(request)
            yield from changes(
                self._asking.ask(model, picture, example, question, history, attached, tokens or 64, who)
            )

        talk, desk = self._talk, self._asking.desk
        for trigger in (talk.send.click, talk.question.submit):
            trigger(ask, self._ask_inputs, self._asked, **self._showing)
        talk.clear.click(lambda: ([], words.status("")), None, [talk.chatbot, talk.status], **AT_ONCE)
        connect_cancel(talk.stop, desk)

    def _connect_pictures(self) -> None:
        def take(event: gr.SelectData):
            name = self._examples[event.index].name
            return self._asking.example_path(name), name, []

        picture, chatbot = self._choices.picture, self._talk.chatbot
        self._look_after(self._choices.gallery.select(take, None, [picture, self._example, chatbot], **AT_ONCE))
        self._look_after(picture.input(lambda: ("", []), None, [self._example, chatbot], **AT_ONCE))

    def _connect_switches(self) -> None:
        models, (model, _, _, experts, all_on, all_off, show_command, command) = self._models, self._choices

        def choose(number):
            switches = list(models[number].switches)
            is_there = gr.update(visible=bool(switches))
            update = gr.update(choices=switches, value=switches, visible=bool(switches))
            return update, [], is_there, is_there, is_there

        def show(number, attached):
            text = words.detach_command(models[number], self._asking.detached(number, attached))
            return gr.update(value=text, visible=True)

        outputs = [experts, self._talk.chatbot, all_on, all_off, show_command]
        self._look_after(model.input(choose, model, outputs, **AT_ONCE))
        self._ask_after(experts.input(lambda: None, **AT_ONCE))
        self._ask_after(all_on.click(lambda number: list(models[number].switches), model, experts, **AT_ONCE))
        self._ask_after(all_off.click(lambda: [], None, experts, **AT_ONCE))
        show_command.click(show, [model, experts], command, **AT_ONCE)
        for trigger in (experts.change, model.input):
            trigger(lambda: gr.update(visible=False), None, command, **AT_ONCE)

    def _connect_address(self, page: Any) -> None:
        def restore(request: gr.Request):
            state = from_query(dict(request.query_params), self._models, self._examples)
            switches = self._models[state.model].switches
            attached = [name for name in switches if name not in state.detached]
            return (
                state.model,
                self._asking.example_path(state.example) or gr.skip(),  # lest what somebody has brought already goes
                state.example,
                state.question or gr.skip(),
                gr.update(choices=list(switches), value=attached, visible=bool(switches)),
            )

        def ask_if_any(model, picture, example, question, history, attached, tokens, request: gr.Request):
            who = visitor(request)
            asked = self._asking.ask(model, picture, example, question, history, attached, tokens or 64, who)
            yield from changes(asked if picture and question else ())

        choices = self._choices
        outputs = [choices.model, choices.picture, self._example, self._talk.question, choices.experts]
        opened = self._look_after(page.load(restore, None, outputs, **AT_ONCE))
        answered = opened.then(ask_if_any, self._ask_inputs, self._asked, **self._showing)
        answered.then(None, js=_SAY_READY, **AT_ONCE)
        self._link.change(None, self._link, js=_SHOW_LINK, **AT_ONCE)

    def _look_after(self, event: Any) -> Any:
        """The tower looks at the picture again."""

        def look(model, picture, example, history, attached, request: gr.Request):
            return self._asking.look(model, picture, example, history, attached, visitor(request))

        return event.then(look, self._look_inputs, self._looked, show_progress_on=[self._talk.stats], **QUEUED)

    def _ask_after(self, event: Any) -> None:
        """And the last question is asked again."""

        def again(model, picture, example, history, attached, tokens, request: gr.Request):
            who = visitor(request)
            yield from changes(self._asking.again(model, picture, example, history, attached, tokens or 64, who))

        self._look_after(event).then(again, self._again_inputs, self._asked, **self._showing)


def connect_cancel(button: Any, desk: Any) -> None:
    """Let a button end its visitor's request.

    Args:
        button: Gradio's.
        desk: Where requests are answered.
    """

    def cancel(request: gr.Request):
        desk.cancel(visitor(request))

    button.click(cancel, **AT_ONCE)
