import random

import pytest

from helpers.eval_files import reference
from tove_lvlm.eval.metrics.vqa import normalize
from tove_lvlm.eval.metrics.vqa_normalize import CONTRACTIONS, strip_punctuation

BOTH = [  # docs/evaluation.md, "VQA accuracy"
    ("A dog.", "dog"),
    ("the two dogs", "2 dogs"),
    ("1,000", "1000"),
    ("10:10", "10:10"),
    ("$3.82", "$3.82"),
    ("2.99", "2.99"),
    (".5", ".5"),
    ("3.", "3"),
    ("U.S.A.", "usa"),
    ("X-ray!", "x ray"),
    ("hello/world", "hello world"),
    ("None", "0"),
    ("a", ""),
    ("dont know", "don't know"),
    ("theyre here", "they're here"),
    ("a\tred\nbus ", "red bus"),
    ("zero ten eleven", "0 10 eleven"),
    ("Im", "im"),
    ("somebody'd", "somebodyd"),
    ("lets", "lets"),
    ("50%", "50%"),
]


@pytest.mark.parametrize(("text", "normal"), BOTH)
@pytest.mark.parametrize("convention", ["vqav2", "m4c"])
def test_both_conventions(text, normal, convention):
    assert normalize(text, convention) == normal


@pytest.mark.parametrize(
    ("text", "vqav2", "m4c"),
    [
        ("King's cross", "king's cross", "king 's cross"),
        ("what's", "what's", "what 's"),
        ("1, 000", "1 000", "1 000"),
        ("red,blue", "red blue", "redblue"),
        ("really?no", "really no", "reallyno"),
        ("1,000 x-rays", "1000 xrays", "1000 x rays"),
    ],
)
def test_where_the_conventions_differ(text, vqav2, m4c):
    assert normalize(text) == vqav2
    assert normalize(text, "m4c") == m4c


def test_a_mark_beside_a_blank_anywhere_goes_everywhere():
    assert strip_punctuation("a-b") == "a b"
    assert strip_punctuation("a-b -c") == "ab c"
    assert strip_punctuation("a-b 1,5") == "ab 15"


def test_only_32_full_stops_go():
    assert strip_punctuation("." * 40) == "." * 8


@pytest.mark.parametrize("package_and_file", [("lavis", "common.vqa_tools.vqa_eval"), ("llava", "eval.m4c_evaluator")])
def test_the_contractions_are_those_of_the_official_scripts(package_and_file):
    module = reference(*package_and_file)
    theirs = module.VQAEval().contractions if "lavis" in package_and_file else module.EvalAIAnswerProcessor.CONTRACTIONS
    assert {word: right for word, right in theirs.items() if word != right} == CONTRACTIONS


def nasty_texts(num: int) -> list[str]:
    """Random strings out of what the rules look at."""
    parts = [*';/[]"{}()=+\\_-><@`,?!.', ":", "'", "'s", "$", "%", " ", " ", " ", "1", "23", "1,5", "\n", "\t"]
    words = ["A", "the", "none", "Two", "ten", "dont", "Id've", "somebody'd", "yall'll", "dog", "U.S.", "X"]
    draw = random.Random(0)
    return ["".join(draw.choices(parts + words, k=draw.randrange(1, 12))) for _ in range(num)]


def test_vqav2_is_the_official_script_on_random_text():
    script = reference("lavis", "common.vqa_tools.vqa_eval").VQAEval()
    for text in nasty_texts(4000):
        line = text.replace("\n", " ").replace("\t", " ").strip()
        assert normalize(text) == script.processDigitArticle(script.processPunctuation(line)), repr(text)


def test_m4c_is_llavas_script_on_random_text():
    script = reference("llava", "eval.m4c_evaluator").EvalAIAnswerProcessor()
    for text in nasty_texts(4000):
        assert normalize(text, "m4c") == script(text), repr(text)
