"""What asking and switching change on the page, with a worker that answers what it is told to."""

import json
from pathlib import Path

import pytest

from tove_lvlm.view.ask import NO_PICTURE, NO_QUESTION, Asking, pairs
from tove_lvlm.view.compare import Comparing
from tove_lvlm.view.pictures import Example
from tove_lvlm.view.requests import Answer, Failed, ModelAbout, Seen, Text

MODELS = [
    ModelAbout(folder=Path("tove"), name="tove", experts=("depth", "edges", "text"), detached=("text",)),
    ModelAbout(folder=Path("base"), name="base", keeps_conversation=False),
]
SAID = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": [{"type": "text", "text": "A cube."}]}]


def answer(text: str, cancelled: bool = False) -> Answer:
    return Answer(
        text=text, tower_ms=1, first_token_ms=2, tokens_per_second=3, memory_bytes=4 << 20, cancelled=cancelled
    )


class Desk:
    """Keeps what it is asked."""

    def __init__(self, *events):
        self.models, self.events, self.asked = MODELS, events, []

    def run(self, request, visitor):
        self.asked.append(request)
        yield from self.events

    def last(self, request, visitor):
        return [*self.run(request, visitor)][-1]


def ask(desk, question="And?", history=SAID, picture="a.png", attached=("depth",), model=0):
    asking = Asking(desk, [Example("a.png", Path("a.png"))])
    return [*asking.ask(model, picture, "a.png", question, list(history), attached, 7, "me")]


def test_an_answer_grows_and_the_question_box_is_emptied_once():
    desk = Desk(Text(text="A"), Text(text="A red"), answer("A red cube."))
    begun, one, two, last = ask(desk)
    (request,) = desk.asked
    assert (request.question, request.earlier, request.max_new_tokens) == ("And?", (("What?", "A cube."),), 7)
    assert request.detached == ("edges", "text"), "what is off on disk stays off"
    assert [step.question for step in (begun, one, two, last)] == ["", None, None, None]
    assert begun.history[-1] == {"role": "user", "content": "And?"}
    assert [step.history[-1]["content"] for step in (one, two, last)] == ["A", "A red", "A red cube."]
    assert "2 ms" in last.stats
    assert last.link == "?model=tove&picture=a.png&ask=And%3F&off=edges,text"


def test_a_failure_gives_the_question_back_and_keeps_the_conversation():
    begun, failed = ask(Desk(Failed(message="no memory")))
    assert (failed.question, failed.history) == ("And?", SAID)
    assert "no memory" in failed.status
    assert len(begun.history) == 3


@pytest.mark.parametrize(("question", "picture", "said"), [("?", None, NO_PICTURE), ("  ", "a.png", NO_QUESTION)])
def test_what_is_missing_is_named_and_nothing_asked(question, picture, said):
    desk = Desk()
    (only,) = ask(desk, question=question, picture=picture)
    assert said in only.status
    assert (only.history, only.question, desk.asked) == (SAID, question, [])


def test_the_base_model_hears_no_earlier_questions():
    desk = Desk(answer("a"))
    ask(desk, model=1, attached=())
    assert (desk.asked[0].earlier, desk.asked[0].detached) == ((), ())


def test_a_switch_asks_the_last_question_again():
    desk = Desk(answer("A ball.", cancelled=True))
    asking = Asking(desk, [])
    *_, last = asking.again(0, "a.png", "", list(SAID), ("edges",), 7, "me")
    (request,) = desk.asked
    assert (request.question, request.earlier, request.detached) == ("What?", (), ("depth", "text"))
    assert pairs(last.history) == [("What?", "A ball.")]
    assert last.question is None, "what is being typed stays"
    assert "Cancelled" in last.status
    assert [*asking.again(0, "a.png", "", [], ("edges",), 7, "me")] == []


def test_looking_says_why_there_is_no_gate():
    seen = Seen(gates=None, why="a plain CLIP", tower_ms=5, memory_bytes=1)
    looked = Asking(Desk(seen), []).look(0, "a.png", "", [], (), "me")
    assert json.loads(looked.gate) == {"why": "a plain CLIP"}
    failed = Asking(Desk(Failed(message="broken")), []).look(0, "a.png", "", [], (), "me")
    assert "broken" in failed.status
    assert Asking(Desk(), []).look(0, None, "", [], (), "me").gate == ""


def test_all_models_are_asked_with_the_experts_that_they_have_on_disk():
    desk = Desk(Text(text="A"), answer("A cube."))
    *_, (table, status) = Comparing(desk).run("a.png", "What?", "me")
    assert [(request.model, request.detached) for request in desk.asked] == [(0, ("text",)), (1, ())]
    assert table.count("A cube.") == 2
    assert "All give the same answer." in status
    ((_, status),) = Comparing(desk).run(None, "What?", "me")
    assert NO_PICTURE in status
    *_, (_, status) = Comparing(Desk(answer("A", cancelled=True))).run("a.png", "What?", "me")
    assert "Cancelled" in status
