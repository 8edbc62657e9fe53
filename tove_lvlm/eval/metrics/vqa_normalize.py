"""Normalisation of short answers before they are compared: the VQA challenge's rules and m4c's.

Sources: `vqaEval.py` of the VQA challenge, and `m4c_evaluator.py` of MMF and LLaVA (TextVQA's scorer, and what LLaVA
writes into upload files). Their slips are kept, because the published scores have them.

See docs/evaluation.md, "VQA accuracy".
"""

import re
from typing import Literal

Convention = Literal["vqav2", "m4c"]

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
# The scripts' `(?!<=\d)` was meant to keep a full stop after a digit and is always true: only what follows counts.
_FULL_STOP = re.compile(r"\.(?!\d)")
# The scripts pass `re.UNICODE` where `re.sub` takes the number of replacements.
_MOST_FULL_STOPS = 32

_NUMBERS = {"none": "0"} | {
    word: str(value)
    for value, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
}
_ARTICLES = {"a", "an", "the"}

_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's I'd've I'm I've isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
    needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll
    somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd
    there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll
    what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
    would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
CONTRACTIONS = {
    word[:at] + word[at + 1 :]: word for word in _CONTRACTED.split() for at, letter in enumerate(word) if letter == "'"
} | {"somebody'd": "somebodyd"}
"""A contraction with one apostrophe missing -> the contraction. The last entry is wrong way round in the scripts; those
with a capital I never apply, because words are lower case by then."""


def normalize(text: str, convention: Convention = "vqav2") -> str:
    """The form in which an answer is compared.

    Args:
        text: An answer of a model or an annotator.
        convention: `vqav2`, or `m4c`, which first lowers case, drops commas and question marks and splits off `'s`.
    """
    if convention == "m4c":
        text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return strip_articles(strip_punctuation(one_line(text)))


def one_line(text: str) -> str:
    """Without newlines, tabs and surrounding blanks."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def strip_punctuation(text: str) -> str:
    """A mark beside a blank goes; another becomes a blank, or goes too if there is a number with a comma anywhere."""
    stripped = text
    comma_in_number = _COMMA_IN_NUMBER.search(text)
    for mark in _PUNCTUATION:
        beside_blank = mark + " " in text or " " + mark in text
        stripped = stripped.replace(mark, "" if beside_blank or comma_in_number else " ")
    return _FULL_STOP.sub("", stripped, count=_MOST_FULL_STOPS)


def strip_articles(text: str) -> str:
    """Lower case, numbers up to ten as digits (and `none` as 0), no articles, contractions with their apostrophes."""
    words = (_NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)
