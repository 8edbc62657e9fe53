"""The page's state goes into its address and comes back; what is not known is left out."""

from pathlib import Path
from urllib.parse import parse_qsl

from tove_lvlm.view.links import State, from_query, to_query
from tove_lvlm.view.pictures import Example
from tove_lvlm.view.requests import ModelAbout

MODELS = [
    ModelAbout(folder=Path("a/clip"), name="clip"),
    ModelAbout(folder=Path("a/tove"), name="tove", experts=("depth", "edges", "text")),
]
EXAMPLES = [Example("a b.png", Path("a b.png"))]


def test_a_state_comes_back():
    state = State(model=1, example="a b.png", question="What's left & right?", detached=("depth", "text"))
    address = to_query(state, MODELS)
    assert address == "?model=tove&picture=a+b.png&ask=What%27s+left+%26+right%3F&off=depth,text"
    assert from_query(dict(parse_qsl(address[1:])), MODELS, EXAMPLES) == state
    assert to_query(State(), MODELS[:1]) == "?"


def test_what_is_not_known_here_is_left_out():
    query = {"model": "other", "picture": "../../etc/passwd", "off": "depth,<script>", "ask": "a" * 5000, "x": "y"}
    assert from_query(query, MODELS, EXAMPLES) == State(question="a" * 1000)
    assert from_query({"model": "tove", "off": "text,depth,nothing"}, MODELS, []).detached == ("depth", "text")
