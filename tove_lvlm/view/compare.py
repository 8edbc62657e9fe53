"""The same question about the same picture, to all models: answers and times side by side."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import words
from .ask import NO_PICTURE, NO_QUESTION
from .components import gr
from .desk import Desk
from .events import QUEUED, connect_cancel, visitor
from .links import MAX_QUESTION
from .requests import Answer, Ask, Failed, Text


class Comparing:
    """The tab.

    Args:
        desk: Asks the models.
    """

    def __init__(self, desk: Desk):
        self._desk = desk

    def run(self, picture: str | None, question: str, visitor: str) -> Iterator[tuple[str, str]]:
        """The table as it fills, and the line that says what is going on.

        Args:
            picture: File.
            question: As typed.
            visitor: Gradio's session.
        """
        models = self._desk.models
        answers: dict[int, Answer | str] = {}
        reason = NO_PICTURE if not picture else NO_QUESTION if not question.strip() else ""
        if reason or picture is None:
            yield words.answers_table(models, {}), words.status(reason, is_failure=True)
            return
        for number, model in enumerate(models):
            line = words.status(f"Asking {model.name} ({number + 1} of {len(models)}) ...")
            request = Ask(model=number, picture=Path(picture), question=question, detached=model.detached)
            for event in self._desk.run(request, visitor):
                match event:
                    case Text(text=text):
                        answers[number] = text
                    case Answer():
                        answers[number] = event
                    case Failed(message=message):
                        answers[number] = message
                yield words.answers_table(models, answers), line
            if isinstance(found := answers.get(number), Answer) and found.cancelled:
                yield words.answers_table(models, answers), words.status("Cancelled.")
                return
        yield words.answers_table(models, answers), words.status(_verdict(answers))

    def build(self, picture: Any) -> None:
        """Put the tab's parts where gradio is building.

        Args:
            picture: The page's picture.
        """
        question = gr.Textbox(label="Question to all models", max_length=MAX_QUESTION, elem_id="tove-compare-question")
        with gr.Row():
            send = gr.Button("Ask all", variant="primary", min_width=70, elem_id="tove-compare-ask")
            stop = gr.Button("Cancel", min_width=70, elem_id="tove-compare-stop")
        status = gr.HTML(words.status(""))
        table = gr.HTML(words.answers_table(self._desk.models, {}), elem_id="tove-compare-table", min_height=200)

        def run(picture, question, request: gr.Request):
            yield from self.run(picture, question, visitor(request))

        for trigger in (send.click, question.submit):
            trigger(run, [picture, question], [table, status], **QUEUED)
        connect_cancel(stop, self._desk)


def _verdict(answers: dict[int, Answer | str]) -> str:
    texts = [found.text for found in answers.values() if isinstance(found, Answer)]
    if len(texts) < 2:
        return ""
    return "All give the same answer." if len({*texts}) == 1 else "The answers differ."
