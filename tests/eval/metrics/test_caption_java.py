"""Java programs: official tokens whatever is in a caption, nothing written beside them, errors that say what to do."""

import contextlib
import io
import json
import math
from pathlib import Path

import pytest

from helpers.requirements import needs_java
from tove_lvlm.config import UserError
from tove_lvlm.eval.metrics import caption_java

TAME = [
    "A dog.",
    "The man's \"big\" hat (red), isn't it?",
    "two-way street -- $3.50 & 50%...",
    "Black & white; [bracketed]!",
    "can't cannot gonna",
]


@pytest.fixture
def java_script(tmp_path, monkeypatch):
    """Puts a program called `java` on PATH in place of the real one: a function of its shell text."""

    def install(text: str) -> None:
        program = tmp_path / "bin" / "java"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    return install


@needs_java
def test_tokens_are_the_official_ones():
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    with contextlib.redirect_stdout(io.StringIO()):
        official = PTBTokenizer().tokenize({k: [{"caption": text}] for k, text in enumerate(TAME)})
    assert caption_java.tokenize(TAME) == [official[k][0] for k in range(len(TAME))]
    assert official[0] == ["a dog"]


@needs_java
def test_no_caption_shifts_another(monkeypatch):
    """The official wrapper gives `b` to the second caption here, and so on."""
    monkeypatch.setenv("LC_ALL", "C")
    awkward = ["", "a\rb", "c\u2028d\x0be\x85f\x0cg", " \n ", "caf\u00e9 \u65e5\u672c", "tab\there", "\ud83d", "..."]
    tokens = caption_java.tokenize([*awkward, "last"])
    assert tokens[:6] == ["", "a b", "c d e f g", "", "caf\u00e9 \u65e5\u672c", "tab here"]
    assert tokens[7:] == ["", "last"]
    assert caption_java.tokenize([]) == []


@needs_java
def test_nothing_is_written_beside_the_jar_and_nothing_is_printed(capfd):
    import pycocoevalcap.tokenizer.ptbtokenizer as module

    folder = Path(module.__file__).parent
    before = folder.stat().st_mtime_ns
    caption_java.tokenize(["a dog"])
    assert folder.stat().st_mtime_ns == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "program", [lambda: caption_java.tokenize(["a"]), lambda: caption_java.meteor(["a"], [["a"]], [[0]])]
)
def test_without_java_the_error_names_the_package(program, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"`java` on PATH.*`default-jre-headless`.*`openjdk`"):
        program()


def test_a_java_that_fails_is_reported(java_script):
    java_script("echo first >&2; echo 'Could not reserve enough space' >&2; exit 3")
    with pytest.raises(UserError, match="failed with code 3: Could not reserve enough space"):
        caption_java.tokenize(["a"])
    with pytest.raises(UserError, match="METEOR failed: Could not reserve enough space"):
        caption_java.meteor(["a"] * 9999, [["a"]] * 9999, [[0]])


def test_a_tokenizer_that_loses_a_line_is_refused(java_script):
    java_script("head -n 1")
    with pytest.raises(UserError, match="1 lines for 2 captions"):
        caption_java.tokenize(["a", "b"])


def test_spice_says_which_jars_go_where():
    said = caption_java.missing_for_spice()
    if not said:
        pytest.skip("SPICE's parser is installed here")
    assert "stanford-corenlp-3.6.0.jar and stanford-corenlp-3.6.0-models.jar" in said
    assert said.endswith("spice/lib")


def test_spice_reads_what_its_program_writes(java_script, monkeypatch):
    """The program is replaced; its input and output are those of the wrapper in pycocoevalcap."""
    monkeypatch.setattr(caption_java, "_PARSER_JARS", ("guava-19.0.jar",))
    assert caption_java.missing_for_spice() == ""
    rows = [{"image_id": k, "scores": {"All": {"f": f}, "Object": {"f": 9}}} for k, f in ((1, None), (0, 0.25))]
    java_script(
        f'echo noise; grep -q \'"image_id": 1, "test": "b", "refs": \\["c", "d"\\]\' "$5" || exit 4\n'
        f"echo '{json.dumps(rows)}' > \"$7\""
    )
    scores = caption_java.spice(["a", "b"], [["x"], ["c", "d"]])
    assert scores[0] == 0.25
    assert math.isnan(scores[1])
