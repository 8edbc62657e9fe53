import random
import re

import pytest

from helpers.eval_files import reference, write_lines
from tove_lvlm.eval.metrics import pope


@pytest.mark.parametrize(
    ("text", "official", "lmms", "vlmevalkit"),
    [
        ("Yes", True, True, True),
        ("No", False, False, False),
        ("no", False, False, False),
        (" no ", False, False, False),
        ("No, there is not.", False, None, False),
        ("Yes. No, wait", True, None, None),
        ("There is not", False, None, None),
        ("NO", True, False, False),
        ("no\n", True, False, False),
        ("No.", False, None, False),
        ("None", True, None, None),
        ("Maybe", True, None, None),
        ("", True, None, None),
        ("yes, no", False, None, None),
    ],
)
def test_what_an_answer_says_depends_on_the_convention(text, official, lmms, vlmevalkit):
    assert pope.read_answer(text) is official
    assert pope.read_answer(text, "lmms-eval") is lmms
    assert pope.read_answer(text, "vlmevalkit") is vlmevalkit


def test_official_is_llavas_script_on_random_answers(tmp_path, capsys):
    script = reference("llava", "eval.eval_pope")
    draw = random.Random(0)
    words = ["No", "no", "not", "Yes", "yes", "NO", "None", ",", ".", " ", " ", "\n", "dog", "no,", "not."]
    texts = ["".join(draw.choices(words, k=draw.randrange(4))) for _ in range(500)]
    labels = [draw.choice(["yes", "no"]) for _ in texts]
    path = write_lines(tmp_path / "labels.json", [{"label": label} for label in labels])
    script.eval_pope([{"text": text} for text in texts], path)
    printed = capsys.readouterr().out
    gold = [label == "yes" for label in labels]
    metrics, _ = pope.score({"": [pope.read_answer(text) for text in texts]}, {"": gold})
    counts = re.search(r"(\d+)\t(\d+)\t(\d+)\t(\d+)", printed).groups()
    assert [metrics[name] for name in ("tp", "fp", "tn", "fn")] == list(map(int, counts))
    for title, name in {
        "Accuracy": "accuracy",
        "Precision": "precision",
        "Recall": "recall",
        "F1 score": "f1",
        "Yes ratio": "yes_ratio",
    }.items():
        assert metrics[name] == float(re.search(f"{title}: (.*)", printed)[1])


def test_published_tables_of_other_models():
    """Confusion tables and F1 of LLaVA-PruMerge's issue 15."""
    tables = {"popular": (778, 21, 1479, 722), "adversarial": (778, 76, 1424, 722), "random": (778, 23, 1387, 722)}
    said, gold = {}, {}
    for split, (tp, fp, tn, fn) in tables.items():
        said[split] = [True] * (tp + fp) + [False] * (tn + fn)
        gold[split] = [True] * tp + [False] * (fp + tn) + [True] * fn
    _, groups = pope.score(said, gold)
    f1 = {split: metrics["f1"] for split, metrics in groups.items()}
    assert f1 == pytest.approx({"popular": 0.676816, "adversarial": 0.6610025, "random": 0.6762277}, abs=1e-6)


SAID = {"random": [True, None, False], "popular": [True, True, None]}
GOLD = {"random": [True, True, False], "popular": [True, False, False]}


def test_units_headline_and_undecided_answers_of_each_convention():
    official, groups = pope.score(SAID, GOLD)
    assert list(official)[:2] == ["mean_f1", "f1"]
    assert groups["random"]["recall"] == 0.5
    assert official["mean_f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert (official["fn"], official["undecided"]) == (1, 1)
    lmms, groups = pope.score(SAID, GOLD, "lmms-eval")
    assert list(lmms)[:2] == ["f1", "mean_f1"]
    assert groups["random"]["recall"] == 1.0
    assert (lmms["fn"], lmms["undecided"], lmms["accuracy"]) == (0, 2, 0.5)
    kit, _ = pope.score(SAID, GOLD, "vlmevalkit")
    assert kit["f1"] == pytest.approx(100 * official["f1"])
    assert kit["yes_ratio"] == pytest.approx(50.0)
