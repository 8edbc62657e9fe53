import json

import pytest

from helpers.eval_files import shared, write_lines
from tove_lvlm.config import UserError
from tove_lvlm.eval.io.answers import Answer, match
from tove_lvlm.eval.io.problems import Problems
from tove_lvlm.eval.tasks.base import GENERATE, LIKELIHOOD
from tove_lvlm.eval.tasks.vsr import CATEGORY, Vsr, VsrLikelihood


def test_the_official_test_split_and_its_majority_class():
    problems = Problems()
    items = Vsr().read([shared("vsr/zeroshot/test.jsonl")], problems)
    assert len(items) == 1222
    assert len({item.image for item in items}) == 715
    score = Vsr().score(items, {item.question_id: "Yes" for item in items}, "official", problems)
    assert not problems
    assert score.metrics["accuracy"] == 629 / 1222
    assert (score.metrics["tp"], score.metrics["fp"]) == (629, 593)
    assert sum(group["n"] for group in score.groups.values()) == 1222
    assert set(score.groups) == {
        "Adjacency",
        "Directional",
        "Orientation",
        "Projective",
        "Proximity",
        "Topological",
        "Unallocated",
    }
    mean = sum(group["accuracy"] * group["n"] for group in score.groups.values()) / 1222
    assert mean == pytest.approx(629 / 1222)


def test_the_dev_split():
    items = VsrLikelihood().read([shared("vsr/zeroshot/dev.jsonl")], Problems())
    assert (len(items), sum(item.gold for item in items)) == (340, 167)


def row(label, caption="The cat is on the mat.", relation="on") -> dict:
    return {"image": "a.jpg", "caption": caption, "label": label, "relation": relation, "subj": "cat"}


@pytest.fixture
def path(tmp_path):
    rows = [row(1), row(0), row(1, relation="facing"), row(0, relation="facing")]
    return write_lines(tmp_path / "test.jsonl", rows)


def test_yes_or_no_form(path):
    items = Vsr().read([path], Problems())
    assert Vsr.form == GENERATE
    assert items[0].choices == ()
    assert '"The cat is on the mat."' in items[0].text
    problems = Problems()
    texts = match(items, [Answer("1", "Yes"), Answer("2", "Yes."), Answer("3", "hardly")], problems)
    score = Vsr().score(items, texts, "official", problems)
    assert [score.metrics[name] for name in ("accuracy", "tp", "fp", "tn", "fn", "undecided")] == [0.25, 1, 1, 0, 1, 1]
    assert score.groups == {"Topological": {"accuracy": 0.5, "n": 2}, "Orientation": {"accuracy": 0.0, "n": 2}}
    assert problems["answer neither yes nor no"] == ["test/3"]
    assert problems["missing answer"] == ["test/4"]


def test_likelihood_form_asks_as_instructblip_does(path):
    items = VsrLikelihood().read([path], Problems())
    assert VsrLikelihood.form == LIKELIHOOD
    assert items[0].choices == ("True", "False")
    assert items[0].text == ('Based on the image, is this statement true or false? "The cat is on the mat." Answer:')
    texts = {"test/1": "True", "test/2": "False", "test/3": "False", "test/4": "yes"}
    problems = Problems()
    score = VsrLikelihood().score(items, texts, "official", problems)
    assert score.metrics["accuracy"] == 0.5
    assert problems["answer neither yes nor no"] == ["test/4"]


def test_ids_are_lines_of_a_file_whatever_was_left_out(tmp_path):
    test = tmp_path / "test.jsonl"
    write_lines(test, [row(1), row("true"), row(1, relation="amidst"), {"image": "a.jpg"}, row(0)])
    dev = write_lines(tmp_path / "dev.jsonl", [row(0)])
    problems = Problems()
    items = Vsr().read([test, dev], problems)
    assert [item.question_id for item in items] == ["test/1", "test/3", "test/5", "dev/1"]
    assert [item.aliases for item in items] == [()] * 4
    assert problems.as_dict() == {
        "label neither 0 nor 1": {"count": 1, "first": ["test.jsonl:2"]},
        "relation of no category": {"count": 1, "first": ["test.jsonl:3"]},
        "row without `caption`": {"count": 1, "first": ["test.jsonl:4"]},
    }
    assert set(Vsr().score(items, {}, "official", Problems()).groups) == {"Topological"}


def test_another_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="no questions in .*x.jsonl"):
        Vsr().read([write_lines(tmp_path / "x.jsonl", [{"a": 1}, {"a": 2}])], Problems())


def test_the_categories_are_those_of_the_official_file():
    official = {}
    for line in shared("vsr/rel_meta_category_dict.txt").read_text().splitlines():
        category, relations = line.split(":")
        official |= {relation.strip(): category for relation in relations.split(",")}
    assert official == CATEGORY
    assert len(CATEGORY) == 70
    assert len(set(CATEGORY.values())) == 7


def test_a_relation_named_twice_is_where_the_official_script_puts_it():
    assert CATEGORY["among"] == "Unallocated"


def test_every_relation_of_the_zero_shot_files_has_a_category():
    for split in ("dev", "test"):
        for line in shared(f"vsr/zeroshot/{split}.jsonl").read_text().splitlines():
            assert json.loads(line)["relation"] in CATEGORY
