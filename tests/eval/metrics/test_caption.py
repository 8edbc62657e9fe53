"""Caption metrics: the published figures of COCO's example, and cases that are computed by hand."""

import json
import math

import pytest

from helpers.eval_files import SHARED
from helpers.requirements import needs_java
from tove_lvlm.config import UserError
from tove_lvlm.eval.metrics import caption, caption_java
from tove_lvlm.eval.metrics.caption import score_captions

EXAMPLE = SHARED / "coco_caption/spice_example_input_larger.json"
PUBLISHED = {"Bleu_1": 0.5794, "Bleu_2": 0.4044, "Bleu_3": 0.2785, "Bleu_4": 0.1908}
PUBLISHED |= {"METEOR": 0.1953, "ROUGE_L": 0.3963, "CIDEr": 0.5999}
_BLEU = [f"Bleu_{n}" for n in range(1, 5)]
FIRST, SECOND = "a red sphere rolls away", "many blue birds sing loudly"


@pytest.fixture
def quick(monkeypatch):
    """METEOR takes ten seconds to start; here it is the number of images."""
    monkeypatch.setattr(caption_java, "meteor", lambda said, known, parts: [float(len(part)) for part in parts])


@pytest.mark.full
@needs_java
@pytest.mark.skipif(not EXAMPLE.is_file(), reason="the 1000 captions of COCO's example are not on this machine")
def test_published_figures_and_those_of_a_part():
    rows = json.loads(EXAMPLE.read_text())
    groups = ["" if k % 10 else "tenth" for k in range(len(rows))]
    found = score_captions([row["test"] for row in rows], [row["refs"] for row in rows], groups)
    assert {name: round(found.metrics[name], 4) for name in PUBLISHED} == PUBLISHED
    assert next(iter(found.metrics)) == "CIDEr"
    assert {type(value) for value in found.metrics.values()} == {float}
    assert found.num_items == 1000
    assert set(found.groups) == {"tenth"}
    # a part is scored as if there were nothing else
    part = rows[::10]
    tokens = caption._tokenized([row["test"] for row in part], [row["refs"] for row in part])
    alone = caption._counted(tokens)
    assert alone == {name: found.groups["tenth"][name] for name in alone}
    assert found.groups["tenth"]["n"] == 100
    assert 0.15 < found.groups["tenth"]["METEOR"] < 0.25
    assert found.groups["tenth"]["METEOR"] != found.metrics["METEOR"]


@needs_java
def test_perfect_and_empty_captions(quick, capfd):
    perfect = score_captions([FIRST, SECOND], [[FIRST], [SECOND]]).metrics
    assert perfect == pytest.approx({"CIDEr": 10, "ROUGE_L": 1, "METEOR": 2} | dict.fromkeys(_BLEU, 1), abs=1e-6)
    half = score_captions([FIRST, ""], [[FIRST], [SECOND]]).metrics
    # five of ten words are there, so that the brevity penalty is exp(1 - 10 / 5)
    expected = {"CIDEr": 5, "ROUGE_L": 0.5, "METEOR": 2} | dict.fromkeys(_BLEU, math.exp(-1))
    assert half == pytest.approx(expected, abs=1e-6)
    assert score_captions(["", ""], [[FIRST], [SECOND]]).metrics["Bleu_1"] < 1e-6
    assert capfd.readouterr() == ("", "")


@needs_java
def test_document_frequencies_are_the_parts_own(quick):
    """`a dog` is in half of all references but in all of its part's, where it weighs nothing."""
    known = [["a dog"], ["a dog"], ["one cat sleeps"], ["some cat eats"]]
    said = ["a dog", "a dog", "one cat sleeps", "some cat eats"]
    found = score_captions(said, known, ["dogs", "dogs", "cats", "cats"])
    assert found.groups["dogs"]["CIDEr"] == 0
    assert found.groups["cats"]["CIDEr"] > 5
    assert found.metrics["CIDEr"] > 5
    assert (found.groups["dogs"]["n"], found.groups["cats"]["METEOR"]) == (2, 2.0)


@needs_java
def test_one_image_has_no_cider_and_the_notes_say_so(quick):
    found = score_captions([FIRST, SECOND, FIRST], [[FIRST], [SECOND], [SECOND]], ["alone", "", ""])
    assert found.groups["alone"]["CIDEr"] == 0
    assert [note for note in found.notes if "CIDEr" in note] == [
        "CIDEr of alone is 0 by its definition: it needs two images or more"
    ]
    whole = score_captions([FIRST], [[FIRST]])
    assert whole.metrics["CIDEr"] == 0
    assert any(note.startswith("CIDEr of the whole is 0") for note in whole.notes)


@needs_java
def test_spice_is_a_mean_or_left_out_with_a_reason(quick, monkeypatch):
    monkeypatch.setattr(caption_java, "missing_for_spice", lambda: "put it there")
    absent = score_captions([FIRST, SECOND], [[FIRST], [SECOND]])
    assert "SPICE" not in absent.metrics
    assert absent.notes == ("put it there",)
    monkeypatch.setattr(caption_java, "missing_for_spice", lambda: "")
    monkeypatch.setattr(caption_java, "spice", lambda said, known: [0.25, 0.75])
    there = score_captions([FIRST, SECOND], [[FIRST], [SECOND]], ["one", ""])
    assert (there.metrics["SPICE"], there.groups["one"]["SPICE"]) == (0.5, 0.25)
    monkeypatch.setattr(caption_java, "spice", lambda said, known: [0.25, math.nan])
    undefined = score_captions([FIRST, SECOND], [[FIRST], [SECOND]])
    assert "SPICE" not in undefined.metrics
    assert "1 captions have none" in undefined.notes[0]


def test_without_java_nothing_is_scored(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="default-jre-headless"):
        score_captions([FIRST], [[FIRST]])


@pytest.mark.parametrize("arguments", [([FIRST], []), ([], []), ([FIRST], [[]]), ([FIRST], [[FIRST]], ["a", "b"])])
def test_what_does_not_fit_is_refused(arguments):
    with pytest.raises(ValueError, match=r"captions for|without a reference"):
        score_captions(*arguments)
