"""Pieces of HTML: what comes from a model is escaped, what differs is marked, commands can be pasted."""

from pathlib import Path

from tove_lvlm.view import words
from tove_lvlm.view.requests import Answer, ModelAbout


def answer(text: str, speed: float | None = 12.34) -> Answer:
    return Answer(text=text, tower_ms=20, first_token_ms=120.6, tokens_per_second=speed, memory_bytes=3 << 20)


def test_times_are_shown_and_unknown_ones_keep_their_places():
    shown, empty = words.stats(answer("a")), words.stats(None)
    for text in ("20 ms", "101 ms", "121 ms", "12.3", "3.0 MiB"):
        assert f"<dd>{text}</dd>" in shown
    assert empty.count("<dt>") == shown.count("<dt>") == 5
    assert "<dd>-</dd>" in words.stats(answer("a", speed=None))


def test_words_that_the_first_model_did_not_say_are_marked():
    assert words.marked("a red cube", "a blue cube") == "a <mark>blue</mark> cube"
    assert words.marked("a red cube", "a red cube") == "a red cube"
    assert words.marked("", "<b>") == "<mark>&lt;b&gt;</mark>"


def test_nothing_of_a_model_becomes_markup():
    models = [ModelAbout(folder=Path("a"), name="<i>a</i>"), ModelAbout(folder=Path("b"), name="b")]
    table = words.answers_table(models, {0: answer("<script>alert(1)</script>"), 1: "<img src=x>"})
    assert "<script>" not in table
    assert "<img" not in table
    assert "<i>" not in table
    assert "&lt;script&gt;" in table
    assert "<b>" not in words.status("<b>", is_failure=True)
    assert 'role="alert"' in words.status("x", is_failure=True)


def test_the_command_can_be_pasted_into_a_shell():
    model = ModelAbout(folder=Path("my models/it's"), name="it's", experts=("a", "b", "c"), detached=("c",))
    command = words.detach_command(model, ("c", "b"))
    assert command == """tove detach 'my models/it'"'"'s' --experts b --output 'outputs/it'"'"'s-detached'"""
    assert words.detach_command(model, ("c",)).startswith("# every expert takes part")
