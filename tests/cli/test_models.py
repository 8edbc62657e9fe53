"""`tove chat` with a LLaVA model: about one picture, about several, again and again."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from tove_lvlm.inference.chat import Chat


@pytest.fixture
def pictures(built, tmp_path, monkeypatch):
    monkeypatch.setattr(Chat, "load", classmethod(lambda cls, folder: cls(*built)))
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    return paths


def test_one_picture_and_several(tove, built, pictures):
    talk, (one, two) = Chat(*built), pictures
    code, out, err = tove("chat", one, "what is red ?", "--max-new-tokens", "5", "--json")
    assert code == 0, err
    expected = {"image": str(one), "question": "what is red ?", "answer": talk.ask(one, "what is red ?", 5)}
    assert json.loads(out) == expected
    asked = "is <image> left of <image> ?"
    code, out, err = tove("chat", one, asked, "--also", two, "--max-new-tokens", "5", "--json")
    assert code == 0, err
    answer = talk.ask([one, two], asked, 5)
    assert json.loads(out) == {"image": [str(one), str(two)], "question": asked, "answer": answer}
    code, _, err = tove("chat", one, asked, "--also", two.with_name("none.png"))
    assert code == 2
    assert "none.png" in err


@pytest.mark.parametrize("several", [False, True])
def test_until_an_empty_line(tove, built, pictures, monkeypatch, several):
    one, two = pictures
    monkeypatch.setattr("sys.stdin", io.StringIO("what is red ?\nwhere ?\n\n"))
    code, out, err = tove("chat", one, *(["--also", two] if several else []), "--max-new-tokens", "5")
    assert code == 0, err
    about = pictures if several else one
    for answer in Chat(*built).ask_many([about] * 2, ["what is red ?", "where ?"], 5):
        assert answer in out
