"""What stands on the page: picture, switches, conversation, figures, token grid."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from . import words
from .components import PictureInput, gr
from .gate_view import static
from .links import MAX_QUESTION
from .pictures import Example
from .requests import ModelAbout

MAX_NEW_TOKENS = 256


class Choices(NamedTuple):
    """The page's left side: what is asked, about what, with which experts."""

    model: Any
    picture: Any
    gallery: Any
    experts: Any
    all_on: Any
    all_off: Any
    show_command: Any
    command: Any


class Talk(NamedTuple):
    """The first tab: the conversation, what it took, and the token grid."""

    chatbot: Any
    question: Any
    max_new_tokens: Any
    send: Any
    stop: Any
    clear: Any
    status: Any
    stats: Any
    gate: Any


def make_choices(models: Sequence[ModelAbout], examples: Sequence[Example]) -> Choices:
    """The left side, where gradio is building.

    Args:
        models: The first is chosen.
        examples: Pictures that are offered.
    """
    switches = list(models[0].switches)
    has_switches = {"visible": bool(switches)}
    model = gr.Dropdown(
        [(one.name, number) for number, one in enumerate(models)],
        value=0,
        label="Model",
        visible=len(models) > 1,
        elem_id="tove-model",
    )
    picture = PictureInput(
        type="filepath",
        label="Picture: drop, paste, take or choose one",
        sources=["upload", "clipboard", "webcam"],
        height=300,
        elem_id="tove-picture",
        buttons=[],
    )
    gallery = gr.Gallery(
        [(str(one.path), one.name) for one in examples],
        label="Examples",
        columns=4,
        height=220,
        allow_preview=False,
        visible=bool(examples),
        elem_id="tove-examples",
        buttons=[],
    )
    label = "Experts that take part"
    experts = gr.CheckboxGroup(switches, value=switches, label=label, elem_id="tove-experts", **has_switches)
    with gr.Row():
        all_on = gr.Button("All on", size="sm", min_width=70, **has_switches)
        all_off = gr.Button("All off", size="sm", min_width=70, **has_switches)
        show_command = gr.Button("Show command", size="sm", min_width=70, **has_switches)
    command = gr.Code("", language="shell", label="Writes this model", visible=False, elem_id="tove-command")
    return Choices(model, picture, gallery, experts, all_on, all_off, show_command, command)


def make_talk() -> Talk:
    """The first tab, where gradio is building."""
    chatbot = gr.Chatbot([], label="Conversation", height=260, render_markdown=False, elem_id="tove-chat", buttons=[])
    with gr.Row():
        question = gr.Textbox(label="Question", lines=1, max_length=MAX_QUESTION, scale=4, elem_id="tove-question")
        max_new_tokens = gr.Number(
            64, label="Longest answer, tokens", minimum=1, maximum=MAX_NEW_TOKENS, precision=0, scale=1
        )
    with gr.Row():
        send = gr.Button("Ask", variant="primary", min_width=70, elem_id="tove-ask")
        stop = gr.Button("Cancel", min_width=70, elem_id="tove-stop")
        clear = gr.Button("Clear", min_width=70, elem_id="tove-clear")
    status = gr.HTML(words.status(""), elem_id="tove-status")
    stats = gr.HTML(words.stats(None), elem_id="tove-stats")
    gate = gr.HTML(
        "",
        html_template=static("gate.html"),
        js_on_load=static("gate.js"),
        apply_default_css=False,
        elem_id="tove-gate",
    )
    return Talk(chatbot, question, max_new_tokens, send, stop, clear, status, stats, gate)
