"""Lists of candidate answers: what is wrong with one is named; the shortlist is that of the likeliest first tokens."""

import json

import pytest
import torch

from tove_lvlm.config import UserError
from tove_lvlm.inference.ranking import RankingConfig


def test_a_list_is_json_or_lines(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(["red", "light blue"]))
    (tmp_path / "a.txt").write_text("red\nlight blue\n")
    ours = RankingConfig.from_file(tmp_path / "a.json")
    assert ours == RankingConfig.from_file(tmp_path / "a.txt")
    assert ours.candidates == ("red", "light blue")
    assert ours.about()["top_k"] == 2
    assert ours.about() != RankingConfig(candidates=("light blue", "red")).about()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('["red", "", "blue"]', "candidate answer 2 is ''; expected a text"),
        ('["red", 3]', "candidate answer 2 is 3; expected a text"),
        ('["red", "blue", " red "]', "candidate answer 3, ' red ', is number 1 too; name it once"),
        ("[]", "the list of candidate answers is empty"),
        ('{"red": 1}', "must hold a list of candidate answers, holds dict"),
        ("[", "cannot be read"),
    ],
)
def test_a_list_that_cannot_be_used_is_named(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=rf"a\.json`.*{message}"):
        RankingConfig.from_file(tmp_path / "a.json")


def test_lines_with_a_gap_are_named(tmp_path):
    (tmp_path / "a.txt").write_text("red\n\nblue\n")
    with pytest.raises(UserError, match="candidate answer 2 is ''"):
        RankingConfig.from_file(tmp_path / "a.txt")
    with pytest.raises(UserError, match="cannot be read"):
        RankingConfig.from_file(tmp_path / "b.txt")


def test_shortlist():
    ranking = RankingConfig(candidates=("a", "b", "c"), top_k=2)
    logits_QV = torch.tensor([[0.0, 3.0, 1.0, 2.0], [5.0, 0.0, 1.0, 9.0]])
    assert ranking.shortlists([1, 2, 3], logits_QV) == [["a", "c"], ["c", "b"]]
    with pytest.raises(UserError, match="`top_k` is 0"):
        RankingConfig(candidates=("a",), top_k=0)
