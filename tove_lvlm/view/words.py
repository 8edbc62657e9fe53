"""Pieces of HTML and of text that the page shows. Everything that comes from a model or a file is escaped."""

import difflib
import shlex
from collections.abc import Mapping, Sequence
from html import escape

from .requests import Answer, ModelAbout, Seen


def status(text: str, is_failure: bool = False) -> str:
    """The line that says what is going on."""
    kind = " tove-failed" if is_failure else ""
    return f'<p class="tove-status{kind}" role="{"alert" if is_failure else "status"}">{escape(text)}</p>'


def stats(event: Answer | Seen | None) -> str:
    """Times and memory; the same places whether they are known or not, so that nothing moves."""
    answer = event if isinstance(event, Answer) else None
    speed = answer.tokens_per_second if answer else None
    cells = {
        "Tower": _ms(event.tower_ms if event else None),
        "Prompt": _ms(answer.prompt_ms if answer else None),
        "First token after": _ms(answer.first_token_ms if answer else None),
        "Tokens per second": "-" if speed is None else f"{speed:.1f}",
        "Weights that take part": "-" if event is None else f"{event.memory_bytes / 2**20:,.1f} MiB",
    }
    shown = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in cells.items())
    return f'<dl class="tove-stats">{shown}</dl>'


def answers_table(models: Sequence[ModelAbout], answers: Mapping[int, Answer | str]) -> str:
    """The same question's answers side by side; words that the first model did not say are marked.

    Args:
        models: In their order.
        answers: Number of a model -> its answer, or why there is none.
    """
    first = answers.get(0)
    base = first.text if isinstance(first, Answer) else None
    rows = []
    for number, model in enumerate(models):
        found = answers.get(number)
        if isinstance(found, Answer):
            told = marked(base, found.text) if base is not None and number else escape(found.text)
            numbers = (found.tower_ms, found.prompt_ms, found.first_token_ms)
            cells = [told, *(f"{value:.0f}" for value in numbers)]
            cells.append("-" if found.tokens_per_second is None else f"{found.tokens_per_second:.1f}")
            cells.append(f"{found.memory_bytes / 2**20:,.1f}")
        else:
            cells = [escape(found or "waiting"), *["-"] * 5]
        body = f"<td>{cells[0]}</td>" + "".join(f'<td class="tove-number">{cell}</td>' for cell in cells[1:])
        rows.append(f"<tr><th scope='row'>{escape(model.name)}</th>{body}</tr>")
    names = ("Model", "Answer", "Tower, ms", "Prompt, ms", "First token, ms", "Tokens/s", "Weights, MiB")
    head = "".join(f"<th scope='col'>{name}</th>" for name in names)
    table = f'<table class="tove-table"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="tove-scroll" tabindex="0" role="region" aria-label="Answers of all models">{table}</div>'


def marked(base: str, text: str) -> str:
    """A text whose words that are not in another one are marked.

    Args:
        base: The other one.
        text: Shown.
    """
    before, words = base.split(), text.split()
    parts = []
    for kind, _, _, start, end in difflib.SequenceMatcher(None, before, words, autojunk=False).get_opcodes():
        part = escape(" ".join(words[start:end]))
        if part:
            parts.append(part if kind == "equal" else f"<mark>{part}</mark>")
    return " ".join(parts)


def detach_command(model: ModelAbout, detached: Sequence[str]) -> str:
    """The command that writes a model without these experts.

    Args:
        model: The running one.
        detached: Experts that are switched off.
    """
    away = [name for name in model.switches if name in detached]
    if not away:
        return "# every expert takes part: there is nothing to write"
    output = f"outputs/{model.name}-detached"
    return shlex.join(["tove", "detach", str(model.folder), "--experts", ",".join(away), "--output", output])


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"
