"""The benchmark of evaluation, in small: all ways give the same answers, and every round is kept."""

import json
import sys

import evaluation

from helpers.tiny_checkpoints import make_miniature


def test_all_ways_are_timed_and_answer_alike(tmp_path, monkeypatch):
    model = make_miniature(tmp_path / "model")
    monkeypatch.setattr(evaluation, "NUM_QUESTIONS", (1, 3))
    monkeypatch.setattr(evaluation.Pope, "max_new_tokens", 3)
    output = tmp_path / "evaluation.json"
    arguments = ["--model", model, "--pictures", 2, "--rounds", 2, "--batch-size", 4, "--output", output]
    monkeypatch.setattr(sys, "argv", ["evaluation.py", *map(str, arguments)])
    assert evaluation.main() == 0
    (entry,) = json.loads(output.read_text()).values()
    ways = {"plain, one", "plain, batched", "tove eval", "nothing kept"}
    assert len(entry["each_round"]) == 2
    for clock, rates in (("wall_s", "questions_per_s"), ("cpu_s", "questions_per_cpu_s")):
        assert set(entry[rates]) == {"1 per picture", "3 per picture"}
        assert all(set(rate) == ways for rate in entry[rates].values())
        seconds = sorted(one[clock]["3 x tove eval"] for one in entry["each_round"])
        assert abs(entry[rates]["3 per picture"]["tove eval"] - 6 / (sum(seconds) / 2)) < 0.01
    assert entry["picture_bytes"] > 0
    assert entry["commit"]


def test_questions_about_a_picture_differ():
    items = evaluation.make_items(3, 18)
    assert len({(item.image, item.text) for item in items}) == len({item.question_id for item in items}) == 54
