"""Whether a checkpoint's files are as they were written."""

import json
from hashlib import sha256

import pytest

from tove_lvlm.train import manifest

NAMES = ("trainable.safetensors", "scheduler.pt", "rank_0.pt", "deepspeed/shard.pt", "identity.json")


@pytest.fixture
def folder(tmp_path):
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"name": name}))
    manifest.write_manifest(tmp_path, [tmp_path / name for name in NAMES], step=4)
    return tmp_path


def test_what_is_listed(folder):
    listed = manifest.read_meta(folder)
    assert (listed["format"], listed["step"], listed["identity"]) == (1, 4, {"name": "identity.json"})
    assert listed["files"] == {name: len(name) + 12 for name in NAMES}
    assert listed["sha256"] == {name: sha256((folder / name).read_bytes()).hexdigest() for name in NAMES}
    assert manifest.damage(folder, checksums=True) is None


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{}",
        "null",
        "3",
        "{",
        '{"files": {}}',
        '{"files": {}, "identity": {}}',
        '{"files": [], "identity": {}}',
        '{"files": {"trainable.safetensors": 1, "scheduler.pt": 1, "rank_0.pt": 1}}',
        '{"files": {"trainable.safetensors": 1, "scheduler.pt": 1, "rank_0.pt": 1}, "identity": []}',
        json.dumps({"files": dict.fromkeys(NAMES, 1), "identity": {}, "sha256": {"x": "1"}}),
        "[" * 100_000,
    ],
)
def test_what_is_no_manifest_is_damage(folder, content):
    (folder / "complete.json").write_text(content)
    assert "complete.json" in manifest.damage(folder)


def test_files_that_go_come_or_change(folder):
    (folder / "deepspeed" / "other.pt").write_text("foreign")  # DeepSpeed takes every file of its folder
    assert manifest.damage(folder) == "deepspeed/other.pt is not listed in complete.json"
    (folder / "deepspeed" / "other.pt").unlink()
    (folder / "scheduler.pt").write_text("short")
    assert manifest.damage(folder) == "scheduler.pt has 5 bytes, was written with 24"
    (folder / "scheduler.pt").write_text("x" * 24)
    assert manifest.damage(folder) is None
    assert manifest.damage(folder, checksums=True) == "scheduler.pt has another checksum than it was written with"
    (folder / "scheduler.pt").unlink()
    assert manifest.damage(folder) == "scheduler.pt is missing"


def test_one_of_before_there_were_checksums_is_whole(folder):
    content = json.loads((folder / "complete.json").read_text())
    del content["sha256"], content["signature"]
    (folder / "complete.json").write_text(json.dumps(content))
    assert manifest.damage(folder, checksums=True) is None
