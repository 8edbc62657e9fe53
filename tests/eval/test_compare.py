"""Two records side by side; what answers other questions, or is scored otherwise, is refused."""

import pytest

from helpers.eval_files import write_lines
from tove_lvlm.config import UserError
from tove_lvlm.eval.benchmark import read_benchmark
from tove_lvlm.eval.compare import compare, incomparable
from tove_lvlm.eval.run import score_record

ROWS = [
    {"question_id": n + 1, "image": "a.jpg", "text": f"Is there a dog {n}?", "label": ("yes", "no")[n % 2]}
    for n in range(4)
]


@pytest.fixture
def record(tmp_path):
    labels = write_lines(tmp_path / "coco_pope_random.json", ROWS)

    def record(texts="yyyy", rows=None, prompt_is_known=True, made_by=None, **settings):
        if rows:
            write_lines(labels, rows)
        benchmark = read_benchmark("pope", [labels], **settings)
        said = {"y": "yes", "n": "no"}
        score = benchmark.score(
            {item.question_id: said[text] for item, text in zip(benchmark.items, texts, strict=False)}
        )
        return score_record(benchmark, score, answers={}, prompt_is_known=prompt_is_known, made_by=made_by)

    return record


def test_differences_are_second_minus_first(record):
    result = compare(record("ynyy"), record("yyyn", made_by={"model": "b", "dtype": "float16"}))
    rows = {(row["group"], row["name"]): row for row in result["metrics"]}
    assert rows["", "accuracy"] == {"group": "", "name": "accuracy", "first": 0.75, "second": 0.75, "difference": 0.0}
    assert rows["random", "fp"]["difference"] == 0
    assert [rows["", "tp"][key] for key in ("first", "second", "difference")] == [2, 2, 0]
    assert result["incomparable"] == []
    assert result["differs"]["dtype"] == (None, "float16")
    result = compare(record("yyyy"), record("ynyn"))
    rows = {(row["group"], row["name"]): row for row in result["metrics"]}
    assert rows["random", "accuracy"]["difference"] == 0.5
    assert result["differs"] == {}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"convention": "lmms-eval"}, "convention: official and lmms-eval"),
        ({"prompt": "{question}"}, "prompt: "),
        ({"prompt_is_known": False}, "prompt: not known"),
        ({"limit": 2}, "limit: None and 2"),
        ({"rows": ROWS[:3]}, r"label files: .* of other content"),
    ],
)
def test_what_is_not_comparable_is_refused_unless_forced(record, settings, reason):
    first, second = record(), record(**settings)
    with pytest.raises(UserError, match=f"not comparable: .*{reason}.* \\(--force compares all the same\\)"):
        compare(first, second)
    forced = compare(first, second, force=True)
    assert forced["incomparable"] == incomparable(first, second)
    assert len(forced["metrics"]) == len(first["metrics"]) + len(first["groups"]["random"])


def test_other_questions_out_of_the_same_files_are_refused(record):
    first = record()
    assert incomparable(first, first | {"questions_sha256": "0"}) == ["questions: other ones out of the same files"]
