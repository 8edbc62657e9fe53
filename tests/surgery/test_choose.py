"""Greedy choice against brute force, on qualities that are written down."""

import itertools
from dataclasses import dataclass

import pytest

from tove_lvlm.config import UserError
from tove_lvlm.surgery.choose import BUDGET_MS, KEEP, MAX_DROP, MIN_GAIN, Rule, choose

NAMES = ("depth", "normals", "edges", "shapes")
WORTH = {"depth": 0.5, "normals": 0.1, "edges": 0.02, "shapes": 0.3}
COST = {"depth": 8.0, "normals": 1.0, "edges": 0.1, "shapes": 2.0}
CLIP_MS = 5.0


@dataclass(frozen=True)
class Quality:
    loss: float | None
    score: float | None = None


class Fake:
    """Quality from a function of the set; remembers what it was asked."""

    def __init__(self, loss, score=lambda names: None):
        self.loss, self.score, self.calls = loss, score, []

    def __call__(self, sets):
        self.calls.append([tuple(names) for names in sets])
        return [Quality(self.loss(names), self.score(names)) for names in sets]


def additive(names) -> float:
    return 2.0 - sum(WORTH[name] for name in names)


def tower_ms(names) -> float:
    return CLIP_MS + sum(COST[name] for name in names)


def rule(name: str, limit: float) -> Rule:
    return Rule(name=name, limit=limit)


@pytest.mark.parametrize("keep", [0, 1, 2, 3])
def test_keep_equals_brute_force_where_experts_add_up(keep):
    chosen = choose(NAMES, Fake(additive), rule(KEEP, keep))
    best = min(itertools.combinations(NAMES, keep), key=additive)
    assert chosen.attached == best
    assert sorted((*chosen.attached, *chosen.removed)) == sorted(NAMES)
    assert chosen.removed == ("edges", "normals", "shapes", "depth")[: 4 - keep]


def test_two_redundant_experts_are_not_both_removed():
    """Each alone can go for nothing; a ranking taken once would remove both."""

    def loss(names):
        return 2.0 - 0.5 * bool({"depth", "normals"} & set(names)) - sum(WORTH[n] for n in names if n in NAMES[2:])

    once = {name: loss([n for n in NAMES if n != name]) - loss(NAMES) for name in NAMES}
    assert sorted(once, key=once.get)[:2] == ["depth", "normals"]
    chosen = choose(NAMES, Fake(loss), rule(KEEP, 2))
    assert chosen.removed == ("depth", "edges")
    assert loss(chosen.attached) == min(loss(names) for names in itertools.combinations(NAMES, 2))


@pytest.mark.parametrize("seed", range(8))
def test_each_step_is_the_best_single_removal(seed):
    """Arbitrary interactions: brute force over each round's sets."""
    import random

    rng = random.Random(seed)
    table = {names: rng.random() for size in range(5) for names in itertools.combinations(NAMES, size)}
    chosen = choose(NAMES, Fake(lambda names: table[tuple(names)]), rule(KEEP, 0))
    now = NAMES
    for step in chosen.steps[:-1]:
        assert step.attached == now
        assert step.loss == table[now]
        without = {gone: tuple(n for n in now if n != gone) for gone in now}
        assert {c.expert: c.loss for c in step.candidates} == {gone: table[names] for gone, names in without.items()}
        assert all(c.gain == table[without[c.expert]] - table[now] for c in step.candidates)
        assert table[without[step.removed]] == min(table[names] for names in without.values())
        now = without[step.removed]
    assert chosen.steps[-1].removed is None
    assert now == ()


def test_one_pass_a_round_and_nothing_measured_twice():
    fake = Fake(additive)
    choose(NAMES, fake, rule(KEEP, 2))
    assert [len(sets) for sets in fake.calls] == [1 + 4, 3]
    asked = [frozenset(names) for sets in fake.calls for names in sets]
    assert len(asked) == len(set(asked))


def test_ties_go_by_cost_then_by_order():
    same = Fake(lambda names: 1.0)
    assert choose(NAMES, same, rule(KEEP, 0)).removed == NAMES
    by_cost = choose(NAMES, same, rule(KEEP, 0), cost=COST)
    assert by_cost.removed == ("depth", "shapes", "normals", "edges")
    assert choose(NAMES[::-1], same, rule(KEEP, 2)).removed == ("shapes", "edges")


@pytest.mark.parametrize(
    ("limit", "removed"),
    [
        (0.02 - 1e-6, ()),
        (0.05, ("edges",)),
        (0.2, ("edges", "normals")),
        (9.0, ("edges", "normals", "shapes", "depth")),
    ],
)
def test_min_gain_stops_at_the_first_expert_worth_it(limit, removed):
    chosen = choose(NAMES, Fake(additive), rule(MIN_GAIN, limit))
    assert chosen.removed == removed
    if chosen.attached:
        assert min(c.gain for c in chosen.steps[-1].candidates) >= limit


def test_min_gain_keeps_both_of_two_experts_of_which_one_was_redundant():
    def loss(names):
        return 1.0 - 0.5 * bool({"depth", "normals"} & set(names))

    chosen = choose(("depth", "normals"), Fake(loss), rule(MIN_GAIN, 0.01))
    assert chosen.attached == ("normals",)
    assert chosen.steps[-1].candidates[0].gain == 0.5


def test_budget_takes_the_least_rise_per_ms_until_it_fits():
    # Rise per ms: depth 0.0625, normals 0.1, shapes 0.15, edges 0.2; 16.1 ms in all.
    chosen = choose(NAMES, Fake(additive), rule(BUDGET_MS, 6.0), cost=COST, tower_ms=tower_ms)
    assert chosen.removed == ("depth", "normals", "shapes")
    assert chosen.steps[-1].tower_ms <= 6.0 < chosen.steps[-2].tower_ms


def test_budget_does_not_give_away_a_dear_expert_where_a_cheap_one_is_enough():
    # With depth and normals gone 7.1 ms are left: 2 ms of shapes have the better rate, 0.1 ms of edges is enough.
    chosen = choose(NAMES, Fake(additive), rule(BUDGET_MS, 7.0), cost=COST, tower_ms=tower_ms)
    assert chosen.removed == ("depth", "normals", "edges")
    fitting = [names for k in range(5) for names in itertools.combinations(NAMES, k) if tower_ms(names) <= 7.0 + 1e-9]
    assert chosen.attached == min(fitting, key=additive)


def test_budget_goes_on_where_the_costs_promised_too_much():
    chosen = choose(
        NAMES, Fake(additive), rule(BUDGET_MS, 8.1), cost=COST, tower_ms=lambda names: tower_ms(names) + bool(names)
    )
    assert chosen.removed[0] == "depth"
    assert len(chosen.removed) == 2
    assert chosen.steps[-1].tower_ms <= 8.1


def test_budget_lets_useless_experts_go_first_however_cheap():
    def loss(names):  # edges does harm
        return additive(names) + 0.1 * ("edges" in names)

    chosen = choose(NAMES, Fake(loss), rule(BUDGET_MS, 9.0), cost=COST, tower_ms=tower_ms)
    assert chosen.removed == ("edges", "depth")


def test_budget_below_clip_says_what_clip_costs():
    fake = Fake(additive)
    with pytest.raises(UserError, match=r"`--budget-ms` is 4.*CLIP alone costs 5 ms"):
        choose(NAMES, fake, rule(BUDGET_MS, 4.0), cost=COST, tower_ms=tower_ms)
    assert fake.calls == []
    exact = choose(NAMES, fake, rule(BUDGET_MS, CLIP_MS), cost=COST, tower_ms=tower_ms)
    assert exact.attached == ()


def test_max_drop_counts_percentage_points_from_the_start():
    points = {"depth": 30, "normals": 2, "edges": 1, "shapes": 10}

    def score(names):
        return (50 + sum(points[name] for name in names)) / 100

    fake = Fake(additive, score)
    assert choose(NAMES, fake, rule(MAX_DROP, 0.5)).removed == ()
    assert choose(NAMES, fake, rule(MAX_DROP, 1)).removed == ("edges",)
    assert choose(NAMES, fake, rule(MAX_DROP, 2.9)).removed == ("edges",)
    assert choose(NAMES, fake, rule(MAX_DROP, 3)).removed == ("edges", "normals")  # 1 + 2 from the start, not 2
    assert choose(NAMES, fake, rule(MAX_DROP, 100)).attached == ()


def test_max_drop_takes_the_loss_among_equal_scores_and_where_there_is_none():
    assert choose(NAMES, Fake(additive, lambda names: 0.9), rule(MAX_DROP, 0)).removed[0] == "edges"
    assert choose(NAMES, Fake(additive), rule(MAX_DROP, 0.12)).removed == ("edges", "normals")


@pytest.mark.parametrize(
    ("name", "limit", "message"),
    [
        (KEEP, 4, "4 experts are attached.*nothing to remove"),
        (KEEP, -1, "`--keep` is -1"),
        (BUDGET_MS, 100.0, "takes 16.1 ms per image: nothing to remove"),
        (MAX_DROP, -1.0, "`--max-drop` is -1"),
        (MIN_GAIN, float("nan"), "`--min-gain` is nan"),
    ],
)
def test_limits_that_make_no_sense_are_refused(name, limit, message):
    with pytest.raises(UserError, match=message):
        choose(NAMES, Fake(additive), rule(name, limit), cost=COST, tower_ms=tower_ms)


def test_no_loss_or_no_expert_is_an_error():
    with pytest.raises(UserError, match="no loss to choose by"):
        choose(NAMES, Fake(lambda names: None), rule(KEEP, 1))
    with pytest.raises(UserError, match="loss is nan"):
        choose(NAMES, Fake(lambda names: float("nan") if len(names) == 3 else 1.0), rule(KEEP, 1))
    with pytest.raises(UserError, match="no expert is attached"):
        choose((), Fake(additive), rule(KEEP, 0))
