"""The folder of a run: answers line by line as they come, from any number of ranks, and going on after a kill.

    run.json              what the answers belong to: questions, prompt, model, decoding
    shards/00000.jsonl    a rank's answers, flushed after every line
    shards/00000.done     the rank has come to its end: which launch it was, what it could not answer
    answers.jsonl         all answers in the order of the questions

Ranks meet in these files only: one that is killed leaves its lines, and nobody hangs on a collective. The
lines are LLaVA's.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...config import UserError
from ...storage import atomic_file, clear_leftovers, load_json, save_json, to_json
from .items import Item
from .problems import Problems
from .record import text_sha256

logger = logging.getLogger(__name__)

ANSWERS = "answers.jsonl"
_RUN = "run.json"
_SHARDS = "shards"


class Shard:
    """Where one rank writes. A context manager."""

    def __init__(self, folder: Path, rank: int, launch: str, model_id: str):
        self._stem = folder / _SHARDS / f"{rank:05d}"
        self._launch = launch
        self._model_id = model_id

    def __enter__(self) -> "Shard":
        self._stream = open(self._stem.with_suffix(".jsonl"), "w", encoding="utf-8")
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    def write(self, item: Item, text: str, metadata: Mapping[str, Any]) -> None:
        """One answer in LLaVA's form; it outlives a kill of this process."""
        row = {
            "question_id": _as_number(item.llava_id or item.question_id),
            "prompt": item.text,
            "text": text,
            "answer_id": text_sha256(f"{self._model_id}\n{item.question_id}\n{item.text}")[:22],
            "model_id": self._model_id,
            "metadata": dict(metadata),
        }
        self._stream.write(to_json(row) + "\n")
        self._stream.flush()

    def finish(self, problems: Problems) -> None:
        """Say that this rank has come to its end."""
        save_json(self._stem.with_suffix(".done"), {"launch": self._launch, "problems": problems.found()})


class Store:
    """A run's folder.

    Args:
        folder: Made when it is missing.
        items: All questions of the benchmark, in their order.
    """

    def __init__(self, folder: Path, items: Sequence[Item]):
        self.folder = folder
        self._order = {item.question_id: number for number, item in enumerate(items)}
        self._written = {item.llava_id or item.question_id: item.question_id for item in items}

    def prepare(self, identity: Mapping[str, Any]) -> set[str]:
        """Gather what is answered already and clear the ranks' files; rank 0 calls this before any rank writes.

        Args:
            identity: What answers must share to be of one run.

        Returns:
            The ids that have an answer.

        Raises:
            UserError: The folder holds answers of another run; names what differs.
        """
        self._check(identity)
        (self.folder / _SHARDS).mkdir(parents=True, exist_ok=True)
        save_json(self.folder / _RUN, dict(identity))
        answered = self.gather()
        self._clear()
        return set(answered)

    def finish(self) -> dict[str, dict[str, Any]]:
        """`gather`, when all ranks have come to their end: their own files go."""
        rows = self.gather()
        self._clear()
        return rows

    def _clear(self) -> None:
        shards = self.folder / _SHARDS
        clear_leftovers(shards)
        for path in (*shards.glob("*.jsonl"), *shards.glob("*.done")):  # a rank may still be removing what is hidden
            path.unlink()

    def _check(self, identity: Mapping[str, Any]) -> None:
        if not (self.folder / _RUN).is_file():
            if (self.folder / ANSWERS).exists():
                raise UserError(f"{self.folder / ANSWERS} is of no run of `tove eval`; name another --output")
            return
        saved = load_json(self.folder / _RUN)
        current = json.loads(json.dumps(identity))
        differ = [key for key in {**saved, **current} if saved.get(key) != current.get(key)]
        if differ:
            differences = "; ".join(
                f"{key}: {_short(saved.get(key))} there, {_short(current.get(key))} now" for key in differ
            )
            raise UserError(
                f"`{self.folder}` holds answers of another run ({differences}); name another --output, or remove "
                "that folder"
            )

    def gather(self) -> dict[str, dict[str, Any]]:
        """All answers so far, by question id in the order of the questions; they are written to `answers.jsonl`.

        A line that was cut off by a kill is left out, and its question will be asked again.
        """
        rows: dict[str, dict[str, Any]] = {}
        shards = sorted((self.folder / _SHARDS).glob("*.jsonl"))
        for path in (self.folder / ANSWERS, *shards):
            for row in _read_lines(path):
                rows.setdefault(self._written.get(str(row["question_id"]), ""), row)
        ordered = sorted((key for key in rows if key in self._order), key=self._order.__getitem__)
        rows = {key: rows[key] for key in ordered}
        with atomic_file(self.folder / ANSWERS) as path:
            lines = (to_json(row) + "\n" for row in rows.values())
            path.write_text("".join(lines), encoding="utf-8")
        return rows

    def wait(self, world_size: int, launch: str, patience: float, pause: float = 0.5) -> dict[str, list[str]]:
        """Wait until all ranks have come to their end.

        Args:
            world_size: Number of ranks.
            launch: Name of this launch, the same on all ranks.
            patience: Seconds without a new answer from anyone after which the others are given up.
            pause: Seconds between two looks.

        Returns:
            Kind of problem -> question ids, of all ranks.

        Raises:
            UserError: Some rank has died; names it, and says how to go on.
        """
        last_size, since = -1, time.monotonic()
        while True:
            # Each file is read once: another launch may write over it at any time.
            done = {rank: self._done(rank, launch) for rank in range(world_size)}
            missing = [rank for rank, one in done.items() if one is None]
            if not missing:
                break
            size = sum(path.stat().st_size for path in (self.folder / _SHARDS).glob("*.jsonl"))
            if size != last_size:
                last_size, since = size, time.monotonic()
            if time.monotonic() - since > patience:
                self.gather()
                raise UserError(
                    f"no sign of rank {', '.join(map(str, missing))} for {patience:.0f} s; all answers so far are in "
                    f"{self.folder / ANSWERS}, and the same command goes on from them"
                )
            time.sleep(pause)
        answers: dict[str, list[str]] = {}
        for one in done.values():
            for kind, which in (one or {}).get("problems", {}).items():
                answers.setdefault(kind, []).extend(which)
        return answers

    def _done(self, rank: int, launch: str) -> dict[str, Any] | None:
        path = self.folder / _SHARDS / f"{rank:05d}.done"
        done = load_json(path) if path.is_file() else {}
        return done if done.get("launch") == launch else None


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not {"question_id", "text"} <= row.keys():
                raise ValueError("no answer")
        except ValueError:
            logger.warning("%s:%d is cut off: that question is asked again", path, number)
            continue
        rows.append(row)
    return rows


def _as_number(question_id: str) -> int | str:
    """As official files write it: a number where it is one and nothing is lost."""
    return int(question_id) if question_id.isdecimal() and str(int(question_id)) == question_id else question_id


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
