"""Requests of lmms-eval: their pictures, or none."""

from types import SimpleNamespace

import pytest
from PIL import Image

from tove_lvlm.config import UserError
from tove_lvlm.harnesses.lmms_eval.requests import Prompt, by_decoding


@pytest.mark.parametrize(
    ("visuals", "message"),
    [
        (["a/film.mp4"], "got a path where an image was expected.*no video"),
        ([{"array": [0.0]}], "got a dict"),
    ],
)
def test_requests_with_anything_but_images(visuals, message):
    asked = Prompt(context="?", where="task `t`, split `test`, document 3", visuals=visuals)
    with pytest.raises(UserError, match=f"task `t`, split `test`, document 3.*{message}"):
        asked.pictures()


@pytest.mark.parametrize("visuals", [None, []])
def test_questions_without_an_image_are_asked_without_one(visuals):
    assert Prompt(context="?", where="", visuals=visuals).pictures() == []
    two = Prompt(context="?", where="", visuals=[Image.new("L", (4, 4)), Image.new("RGB", (4, 4))]).pictures()
    assert [picture.mode for picture in two] == ["RGB", "RGB"]


def test_requests_are_grouped_by_how_they_are_answered_and_stay_in_order():
    """Documents about one picture follow each other, and the picture is then read once."""
    ways = [{"max_new_tokens": 5}, {"max_new_tokens": 9}, {"max_new_tokens": 5}]
    requests = [SimpleNamespace(args=("what ?" * place, way)) for place, way in enumerate(ways)]
    assert list(by_decoding(requests).values()) == [[0, 2], [1]]
