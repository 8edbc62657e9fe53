"""Data rows in every format that training reads, through the data sets that it reads them with.

A stage builds its data set before its first step; the stage itself costs seconds and is left out. Rows that are
accepted are the same when they are read twice, are as many as the file has by a plain count, and say nothing that is
not in it.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from PIL import Image

from helpers.pictures import paint
from tove_lvlm.data.conversations import IGNORE_INDEX, IMAGE_TOKEN_INDEX, Encoded
from tove_lvlm.data.dataset import ToVEDataset
from tove_lvlm.data.record_dataset import RecordDataset
from tove_lvlm.data.text_dataset import TextDataset
from tove_lvlm.data.text_sources import SOURCES

from ..mutate import byte_edits, edited, edited_bytes, json_edits, rarely
from ..property import Target
from ..worlds import image_processor, tokenizer

_ASKED, _SAID = "<image>\nwhat is red ?", "the ball"
_TALK = [{"from": "human", "value": _ASKED}, {"from": "gpt", "value": _SAID}]
_LLAVA = [
    {"id": "a", "image": "0.png", "conversations": _TALK},
    {"id": 7, "image": "deep/1.png", "conversations": [*_TALK, {"from": "human", "value": "?"}, _TALK[1]]},
]
_VQA_QUESTIONS = [{"question_id": 1, "image_id": 3, "question": "what ?"}]
_VQA = {
    "questions.json": {"data_subtype": "val2014", "questions": _VQA_QUESTIONS},
    "annotations.json": {"annotations": [{"question_id": 1, "multiple_choice_answer": "red"}]},
}
_COCO = {
    "images": [{"id": 5, "file_name": "0.png"}],
    "annotations": [{"id": 1, "image_id": 5, "caption": "a red ball"}],
}
_SENTENCES = [{"raw": "a red ball"}, {"raw": "a ball"}]
FILES: dict[str, dict[str, Any]] = {
    "json": {"data.json": _LLAVA},
    "jsonl": {"data.jsonl": _LLAVA},
    "coco": {"data.json": _COCO},
    "karpathy": {"data.json": {"images": [{"filename": "0.png", "split": "train", "sentences": _SENTENCES}]}},
    "tsv": {"data.tsv": [["caption", "path"], ["a red ball", "0.png"], ["a ball", "deep/1.png"]]},
    "visual_genome": {"data.json": [{"id": 0, "regions": [{"region_id": 4, "image_id": 0, "phrase": "a ball"}]}]},
    "vsr": {"data.jsonl": [{"image": "0.png", "caption": "the ball is red", "label": 1, "relation": "on"}]},
    "vqav2": _VQA,
    "webdataset": {
        "data.tar": [["1.png", "PNG"], ["1.txt", "a red ball"], ["2.json", {"caption": "x"}], ["2.png", "PNG"]]
    },
}
"""Format -> file -> what it holds; a shard is a list of names and contents."""
_FORMATS = {"json": "llava", "jsonl": "llava"}
_VALUES = (
    "human",
    "gpt",
    "<image>",
    "<image>\n<image>",
    "<video>",
    "0.png",
    ["0.png", "deep/1.png"],
    ["0.png"],
    "../0.png",
    "/etc/passwd",
    "deep",
    "broken.png",
    "link.png",
    "</s>",
    "USER: ASSISTANT:",
    "a\tb",
    "é" * 40,
    {"conversations": _TALK},
    _TALK,
)
CASES = st.fixed_dictionaries(
    {
        "format": st.sampled_from(sorted(FILES)),
        "edits": json_edits(*_VALUES),
        "bytes": rarely(byte_edits(2, (b"\t", b"ustar", b"\r\n", b"{", b"[")), []),
        "on_error": st.sampled_from(["raise", "skip"]),
        "template": st.sampled_from(["v1", "plain"]),
        "length": st.sampled_from([2048, 60, 3]),
    }
)


def _write(case: dict[str, Any], folder: Path) -> None:
    for name in ("0.png", "deep/1.png", "COCO_val2014_000000000003.jpg", "0.jpg"):
        paint(folder / "images" / name, seed=0, size=(6, 5))
    (folder / "images" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "images" / "link.png").symlink_to("/etc/hostname")
    contents = edited(FILES[case["format"]], case["edits"])
    for name in FILES[case["format"]]:
        content = contents.get(name) if isinstance(contents, dict) else contents
        (folder / name).write_bytes(edited_bytes(_file(name, content), case["bytes"]))


def _file(name: str, content: Any) -> bytes:
    """A file's bytes; content of another shape than the format has is written as far as it goes."""
    if name.endswith(".tar"):
        return _shard(content)
    if name.endswith(".tsv"):
        rows = content if isinstance(content, list) else [content]
        lines = ["\t".join(map(str, row)) if isinstance(row, list) else str(row) for row in rows]
        return "\n".join(lines).encode("utf-8", "surrogatepass")
    if name.endswith(".jsonl") and isinstance(content, list):
        return "\n".join(map(json.dumps, content)).encode()
    return json.dumps(content).encode()


def _shard(entries: Any) -> bytes:
    stream, picture = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (6, 5), "red").save(picture, "PNG")
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for entry in entries if isinstance(entries, list) else []:
            name, held = (entry + ["", ""])[:2] if isinstance(entry, list) else (entry, "")
            text = held if isinstance(held, str) else json.dumps(held)
            content = picture.getvalue() if held == "PNG" else text.encode("utf-8", "surrogatepass")
            header = tarfile.TarInfo(str(name).replace("\0", "").encode(errors="replace").decode()[:90])
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return stream.getvalue()


class _Encoder:
    """Stands for the base model's processor: what is asked and said, as numbers of characters."""

    def encode_rounds(self, pairs) -> list[Encoded]:
        return [Encoded([1, *map(ord, asked + said)], [1, *map(ord, asked + said)]) for asked, said in pairs]


def _read(case: dict[str, Any], inputs: Path) -> tuple[RecordDataset, list[Any]]:
    options = {
        "image_processor": image_processor(),
        "image_folder": inputs / "images",
        "on_error": case["on_error"],
    }
    files = [inputs / name for name in FILES[case["format"]]]
    if case["format"] in _FORMATS:
        data: Any = ToVEDataset(
            files,
            tokenizer=tokenizer(),
            num_image_tokens=16,
            model_max_length=case["length"],
            template=case["template"],
            **options,
        )
    else:
        data = TextDataset(files, encoder=_Encoder(), source_format=case["format"], **options)
    return data, [data[index] for index in range(len(data))]


def _act(case: dict[str, Any], inputs: Path, output: Path) -> tuple[RecordDataset, list[Any]]:
    return _read(case, inputs)


def _accepted(case: dict[str, Any], inputs: Path, output: Path, result: tuple[RecordDataset, list[Any]]) -> None:
    data, samples = result
    again, samples_again = _read(case, inputs)
    assert list(data.records) == list(again.records), "other records the second time"
    assert len(samples) == len(data.records) > 0
    for sample, other in zip(samples, samples_again, strict=True):
        _check_sample(sample, case)
        assert {**sample, "pixel_values": None} == {**other, "pixel_values": None}
        assert (sample["pixel_values"] is None) == (other["pixel_values"] is None)
        assert sample["pixel_values"] is None or torch.equal(sample["pixel_values"], other["pixel_values"])
    _check_texts(data, b"".join((inputs / name).read_bytes() for name in FILES[case["format"]]), case)
    if case["on_error"] == "raise" and case["format"] in _FORMATS:
        assert len(data) == _plain_count((inputs / next(iter(FILES[case["format"]]))).read_text(encoding="utf-8-sig"))


def _check_sample(sample: dict[str, Any], case: dict[str, Any]) -> None:
    pixels = sample["pixel_values"]
    if pixels is not None:
        assert pixels.shape[-3:] == (3, 16, 16)
        assert bool(torch.isfinite(pixels).all())
        places = [sample["input_ids"].count(IMAGE_TOKEN_INDEX)] if "input_ids" in sample else []
        assert list(pixels.shape[:-3]) == places
    for ids, labels in sample.get("rows", [(sample.get("input_ids"), sample.get("labels"))]):
        assert len(ids) == len(labels) > 0
        assert any(label != IGNORE_INDEX for label in labels), "nothing is learned from the sample"
        assert all(label in (IGNORE_INDEX, token) for token, label in zip(ids, labels, strict=True))


def _check_texts(data: RecordDataset, content: bytes, case: dict[str, Any]) -> None:
    """What is learned stands in the file."""
    if case["bytes"] or case["format"] == "vsr":  # whose answers are words of ours
        return
    found = set(_texts(content, case["format"]))
    for record in data.records:
        for turn in record.conversation:
            said = turn["value"].removeprefix("<image>\n").strip()
            assert not said or any(said in text for text in found), f"{said!r} is not in the file"


def _texts(content: bytes, file_format: str) -> Iterator[str]:
    """All strings of a file, whatever its structure."""
    if file_format in ("tsv", "webdataset"):
        text = content.decode("utf-8", "surrogatepass" if file_format == "tsv" else "replace")
        yield text
        yield text.encode("utf-8", "replace").decode("unicode_escape", "replace")
        return
    stack: list[Any] = []
    decoder, text, at = json.JSONDecoder(), content.decode(), 0
    while at < len(text):  # several files or lines, one after the other
        value, at = decoder.raw_decode(text, at)
        stack.append(value)
        at += len(text[at:]) - len(text[at:].lstrip())
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list):
            stack.extend(value.values() if isinstance(value, dict) else value)


def _plain_count(text: str) -> int:
    """Entries of a JSON list, or lines that are not blank."""
    try:
        value = json.loads(text)
        return len(value) if isinstance(value, list) else 1
    except ValueError:
        return sum(bool(line.strip()) for line in text.split("\n"))


assert set(SOURCES) == {_FORMATS.get(name, name) for name in FILES}, "a format has no cases"
TARGET = Target(name="rows", cases=CASES, write=_write, act=_act, accepted=_accepted)
