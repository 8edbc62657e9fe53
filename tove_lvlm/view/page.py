"""The page: its parts put together."""

from collections.abc import Sequence
from html import escape
from typing import Any

from .ask import Asking
from .compare import Comparing
from .components import gr
from .desk import Desk
from .disagreements import Paging
from .events import Events
from .parts import make_choices, make_talk
from .pictures import Example
from .usage import Measuring

TITLE = "ToVE view"


def build_page(desk: Desk, examples: Sequence[Example], paging: Paging | None) -> Any:
    """The page as gradio's `Blocks`.

    Args:
        desk: Asks the models.
        examples: Pictures that are offered.
        paging: Over what models of `tove eval` disagree about; None where no runs were given.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=False) as page:
        shown = ", ".join(f"{model.name} ({model.about})" for model in desk.models)
        gr.HTML(f'<div class="tove-title"><h1>{TITLE}</h1><p>{escape(shown)}</p></div>')
        with gr.Row(elem_id="tove-main"):
            with gr.Column(scale=1, min_width=280):
                choices = make_choices(desk.models, examples)
            with gr.Column(scale=2, min_width=280), gr.Tabs():
                with gr.Tab("Ask and look"):
                    talk = make_talk()
                if len(desk.models) > 1:
                    with gr.Tab("Compare"):
                        Comparing(desk).build(choices.picture)
                if paging is not None:
                    with gr.Tab("Disagreements"):
                        paging.build()
                with gr.Tab("Usage"):
                    Measuring(desk, examples).build(choices.model)
        Events(Asking(desk, examples), examples, choices, talk).connect(page)
    return page
