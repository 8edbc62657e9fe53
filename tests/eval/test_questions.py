"""Each question by itself is worth what the whole benchmark's score says it is."""

import pytest

from helpers.eval_files import write_json
from tove_lvlm.eval.benchmark import read_benchmark
from tove_lvlm.eval.questions import scored_answers
from tove_lvlm.world.benchmarks import write_benchmarks

DATA = "playground/data/eval"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world") / "benchmarks"
    write_benchmarks(folder, 3)
    return folder


def labels_of(world, name):
    patterns = {
        "pope": f"{DATA}/pope/coco/coco_pope_*.json",
        "vsr": f"{DATA}/vsr/zeroshot/test.jsonl",
        "gqa": f"{DATA}/gqa/data/testdev_balanced_questions.json",
        "textvqa": f"{DATA}/textvqa/TextVQA_0.5.1_val.json",
        "vqav2": "v2_*_val2014_*.json",
        "vizwiz": "Annotations/val.json",
    }
    found = sorted(world.glob(patterns[name]))
    assert found
    return found


@pytest.mark.parametrize(
    ("name", "convention", "scale"),
    [
        ("pope", "official", 1),
        ("pope", "vlmevalkit", 100),
        ("vsr", "official", 1),
        ("gqa", "official", 100),
        ("gqa", "lmms-eval", 1),
        ("textvqa", "official", 100),
        ("vqav2", "official", 100),
        ("vqav2", "lmms-eval", 1),
        ("vizwiz", None, 100),
    ],
)
def test_the_mean_is_the_benchmarks_accuracy(world, name, convention, scale):
    benchmark = read_benchmark(name, labels_of(world, name), convention)
    texts = {item.question_id: ("yes", "no", "red", "2")[number % 4] for number, item in enumerate(benchmark.items)}
    scored = list(scored_answers(benchmark, texts))
    assert len(scored) == len(benchmark.items)
    mean = sum(one.share for one in scored) / len(scored)
    assert scale * mean == pytest.approx(benchmark.score(texts).metrics["accuracy"], abs=0.01)
    right = {one.item.question_id: one.expected for one in scored}
    assert all(one.is_right for one in scored_answers(benchmark, right))


def test_of_annotators_the_most_frequent_answer_is_shown_and_a_half_is_right(tmp_path):
    answers = ["blue"] * 6 + ["navy"] * 3 + ["grey"]
    row = {"question_id": 1, "image_id": "a", "question": "Which colour?", "answers": answers}
    labels = write_json(tmp_path / "TextVQA_0.5.1_val.json", {"data": [row]})
    benchmark = read_benchmark("textvqa", [labels])
    shares = {}
    for text in ("blue", "navy", "grey", "red"):
        (one,) = scored_answers(benchmark, {"1": text})
        shares[text] = (one.expected, one.share, one.is_right)
    # Leaving each annotator out in turn: navy 0.7 * 1 + 0.3 * 2/3, grey 0.9 * 1/3.
    assert shares["blue"] == ("blue", pytest.approx(1.0), True)
    assert shares["navy"] == ("blue", pytest.approx(0.9), True)
    assert shares["grey"] == ("blue", pytest.approx(0.3), False)
    assert shares["red"] == ("blue", 0.0, False)


def test_captions_and_questions_without_an_answer_give_nothing(tmp_path):
    coco = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [{"id": 1, "image_id": 1, "caption": "a dog"}]}
    benchmark = read_benchmark("coco_caption", [write_json(tmp_path / "captions_val2014.json", coco)])
    assert list(scored_answers(benchmark, {"1": "a dog"})) == []
    assert list(scored_answers(benchmark, {})) == []
