from tove_lvlm.eval.metrics import score


def test_accuracy_is_scaled_then_rounded():
    assert score.accuracy([1.0, 0.0, 0.0]) == 1 / 3
    assert score.accuracy([1.0, 0.0, 0.0], 100.0, 2) == 33.33
    assert score.accuracy([]) == 0.0


def test_groups_are_sorted_and_counted_and_may_overlap():
    labelled = [("b", 1.0), ("a", 0.0), ("b", 0.0), ("a", 1.0), ("a", 1.0)]
    groups = score.by_group(labelled, 100.0, 1)
    assert list(groups) == ["a", "b"]
    assert groups == {"a": {"accuracy": 66.7, "n": 3}, "b": {"accuracy": 50.0, "n": 2}}
