"""The Java programs in pycocoevalcap: the PTB tokenizer, METEOR 1.5 and SPICE.

The package's jars are run here, not its wrappers. Those write into site-packages, print, use the locale's charset, and
take a line separator inside a caption (carriage return, U+2028, ...) for the start of the next caption, so that all
that follow are scored against another image's references.

See docs/evaluation.md, "Captions".
"""

import json
import math
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import IO, cast

from ...config import UserError
from ...registry import require

_PTB_JAR = "stanford-corenlp-3.4.1.jar"
_METEOR_JAR = "meteor-1.5.jar"
_SPICE_JAR = "spice-1.0.jar"
_PARSER_JARS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
_PARSER_SITE = "stanford-corenlp-full-2015-12-09.zip from https://nlp.stanford.edu/software/"


def check() -> None:
    """Look for all that the caption metrics need.

    Raises:
        UserError: There is no Java.
        ImportError: pycocoevalcap is not installed.
    """
    require("pycocoevalcap.tokenizer.ptbtokenizer", extra="eval")
    _command([])


def tokenize(captions: Sequence[str]) -> list[str]:
    """Captions as the official evaluation sees them: PTB tokens in lower case without punctuation, joined by blanks.

    Args:
        captions: Any texts; white space of any kind separates words.

    Returns:
        One string for each caption, empty where no word is left.

    Raises:
        UserError: There is no Java, or it fails.
        ImportError: pycocoevalcap is not installed.
    """
    module = require("pycocoevalcap.tokenizer.ptbtokenizer", extra="eval")
    text = "".join(" ".join(caption.split()) + "\n" for caption in captions)
    program = ["-cp", _PTB_JAR, "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    lines = _java(_folder(module), [*program, "-encoding", "UTF-8"], text).split("\n")[:-1]
    if len(lines) != len(captions):
        raise UserError(f"the PTB tokenizer gave {len(lines)} lines for {len(captions)} captions; nothing is scored")
    dropped = set(module.PUNCTUATIONS)
    return [" ".join(word for word in line.split() if word not in dropped) for line in lines]


def meteor(
    candidates: Sequence[str], references: Sequence[Sequence[str]], parts: Sequence[Sequence[int]]
) -> list[float]:
    """METEOR 1.5 for English, in [0, 1], of each part of the images.

    Args:
        candidates: Tokenised captions.
        references: Tokenised references of each caption's image.
        parts: Positions of the captions that are scored together.

    Raises:
        UserError: There is no Java, or it fails.
    """
    folder = _folder(require("pycocoevalcap.meteor.meteor", extra="eval"))
    command = _command(["-Xmx2G", "-jar", _METEOR_JAR, "-", "-", "-stdio", "-l", "en", "-norm"])
    rows = [[*captions, candidate] for captions, candidate in zip(references, candidates, strict=True)]
    with tempfile.TemporaryFile() as errors:
        try:
            # one process for all: it takes ten seconds to start
            with subprocess.Popen(
                command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            ) as process:
                statistics = [_ask(process, ["SCORE", *(text.replace("|||", " ") for text in row)]) for row in rows]
                # the score of every caption comes first, the part's own last
                return [float(_ask(process, ["EVAL", *(statistics[i] for i in part)], len(part))) for part in parts]
        except (OSError, ValueError) as error:
            errors.seek(0)
            raise UserError(f"METEOR failed: {_last_line(errors.read()) or error}") from error


def _folder(module: ModuleType) -> Path:
    """Of a module of pycocoevalcap: what its Java needs lies beside it."""
    return Path(cast(str, module.__file__)).parent


def _ask(process: subprocess.Popen[bytes], words: Sequence[str], skipped: int = 0) -> str:
    """METEOR's answer to one request, of whose lines the first few are skipped."""
    requests, replies = cast("tuple[IO[bytes], IO[bytes]]", (process.stdin, process.stdout))  # both are pipes
    requests.write((" ||| ".join(words) + "\n").encode("utf-8", "replace"))
    requests.flush()
    return [replies.readline() for _ in range(skipped + 1)][-1].decode("utf-8").strip()


def missing_for_spice() -> str:
    """What SPICE lacks, in a sentence that says what to put where; empty when all is there."""
    lib = _folder(require("pycocoevalcap.spice.spice", extra="eval")) / "lib"
    missing = [jar for jar in _PARSER_JARS if not (lib / jar).is_file()]
    return f"SPICE is left out: put {' and '.join(missing)} (of {_PARSER_SITE}) into {lib}" if missing else ""


def spice(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """SPICE's F-score of each caption, in [0, 1]; not a number where SPICE defines none.

    Args:
        candidates: Tokenised captions.
        references: Tokenised references of each caption's image.

    Raises:
        UserError: There is no Java, or it fails (it takes up to 8 GB of memory).
    """
    folder = _folder(require("pycocoevalcap.spice.spice", extra="eval"))
    rows = [
        {"image_id": index, "test": candidate, "refs": list(captions)}
        for index, (candidate, captions) in enumerate(zip(candidates, references, strict=True))
    ]
    with tempfile.TemporaryDirectory() as working:
        captions_file, scores_file = Path(working, "captions.json"), Path(working, "scores.json")
        captions_file.write_text(json.dumps(rows))
        _java(
            folder, ["-Xmx8G", "-jar", _SPICE_JAR, str(captions_file), "-out", str(scores_file), "-subset", "-silent"]
        )
        scores = {row["image_id"]: row["scores"]["All"]["f"] for row in json.loads(scores_file.read_text())}
    return [math.nan if scores[index] is None else float(scores[index]) for index in range(len(rows))]


def _java(folder: Path, arguments: Sequence[str], text: str = "") -> str:
    """What a Java program in `folder` writes when it reads `text`."""
    done = subprocess.run(_command(arguments), cwd=folder, input=text.encode("utf-8", "replace"), capture_output=True)
    if done.returncode:
        program = " ".join(arguments[:3])
        raise UserError(f"`java {program} ...` failed with code {done.returncode}: {_last_line(done.stderr)}")
    return done.stdout.decode("utf-8")


def _command(arguments: Sequence[str]) -> list[str]:
    if shutil.which("java") is None:
        raise UserError(
            "caption metrics need Java and there is no `java` on PATH; install a Java runtime: the package "
            "`default-jre-headless` of Debian and Ubuntu, `openjdk` of conda and Homebrew"
        )
    return ["java", "-Dfile.encoding=UTF-8", *arguments]


def _last_line(output: bytes) -> str:
    return output.decode("utf-8", "replace").strip().rpartition("\n")[2]
