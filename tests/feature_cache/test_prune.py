"""What goes and what stays."""

import errno
import os

import pytest
import torch

from tove_lvlm.config import UserError
from tove_lvlm.feature_cache import CacheFolder, folder, shard
from tove_lvlm.feature_cache.prune import prune


@pytest.fixture
def filled(open_store, keys, records):
    """Two shards that both have images 4 and 5; record 1 of the first is damaged, its index torn."""
    for rows in (range(6), range(4, 10)):
        opened = open_store()
        opened._table = type(opened._table)()  # does not know of the other process yet
        opened.put([keys[row] for row in rows], records[list(rows)])
        opened.close()
    first = min(opened.path.glob("*.data"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    content = bytearray(first.read_bytes())
    content[shard.DATA_HEADER + records.shape[1]] ^= 1
    first.write_bytes(content)
    with first.with_suffix(".index").open("ab") as file:
        file.write(b"BLCKtorn")
    return opened.path


def test_repeated_damaged_and_torn_goes(filled, open_store, tmp_path, keys, records):
    (filled / "0000000000000000.data").write_bytes(b"never got an index")
    (filled / ".00ff.data.01234567.tove-tmp").mkdir()
    report = prune(CacheFolder(tmp_path / "cache"))
    assert (report.repeated, report.damaged, report.in_use, report.left_alone) == (2, 1, 0, [])
    assert report.bytes_after < report.bytes_before
    found = open_store().get(keys)
    assert len(found.missing) == 1
    good = [row for row in range(10) if row not in found.missing]
    assert torch.equal(found.records_BR[good], records[good])
    assert {path.suffix for path in filled.iterdir()} == {".data", ".index", ".json"}
    again = prune(CacheFolder(tmp_path / "cache"))
    assert (again.repeated, again.damaged, again.bytes_after) == (0, 0, again.bytes_before)


def test_a_tight_shard_keeps_its_files(open_store, tmp_path, keys, records):
    opened = open_store()
    opened.put(keys, records)
    opened.close()
    before = {path: path.stat().st_ino for path in opened.path.iterdir()}
    prune(CacheFolder(tmp_path / "cache"))
    assert {path: path.stat().st_ino for path in opened.path.iterdir()} == before


def test_a_shard_that_is_being_written_stays_and_a_reader_goes_on(filled, open_store, tmp_path, keys, records):
    reader, writer = open_store(), open_store()
    assert reader.get(keys).missing == [1]
    writer.put(keys[1:2], records[1:2])
    report = prune(CacheFolder(tmp_path / "cache"))
    assert report.in_use == 1
    for store in (reader, writer, open_store()):
        found = store.get(keys)
        assert found.missing == []
        assert torch.equal(found.records_BR, records)


def test_parts_and_old_shards_go_where_asked(filled, open_store, tmp_path, keys, records):
    other = open_store("cd" * 32)
    other.put(keys, records)
    other.close()
    cache = CacheFolder(tmp_path / "cache")
    with pytest.raises(UserError, match=r"has no part `dep`; expected one of (ab)+, (cd)+, depth"):
        prune(cache, drop=["dep"])
    report = prune(cache, drop=[filled.name])
    assert report.dropped_parts == [filled.name]
    assert not filled.exists()
    assert open_store("cd" * 32).get(keys).missing == []
    report = prune(cache, size_gb=100 / folder.GB)
    assert report.outdated_shards == 1
    assert open_store("cd" * 32).get(keys).missing == list(range(10))
    assert prune(cache, drop=["depth"]).dropped_parts == ["cd" * 8]
    assert [path.name for path in cache.path.iterdir()] == [folder.MARKER]


def test_foreign_files_are_left_alone(filled, tmp_path):
    foreign = filled / "ffff.index"
    foreign.write_bytes(b"mine")
    (filled / "ffff.data").write_bytes(b"mine too")
    report = prune(CacheFolder(tmp_path / "cache"))
    assert len(report.left_alone) == 1
    assert foreign.read_bytes() == b"mine"
    (filled / folder.PART_FILE).write_text("{}")
    assert "does not describe a part" in prune(CacheFolder(tmp_path / "cache")).left_alone[0]


def test_a_full_disk_is_one_line_and_loses_nothing(filled, open_store, tmp_path, keys, monkeypatch):
    before = open_store().get(keys).missing
    inner = os.write

    def full(handle, content):
        if len(content) == 64 or len(content) == shard.DATA_HEADER:
            return inner(handle, content)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shard.os, "write", full)
    with pytest.raises(UserError, match="cannot be written: No space left on device"):
        prune(CacheFolder(tmp_path / "cache"))
    monkeypatch.setattr(shard.os, "write", inner)
    assert open_store().get(keys).missing == before
    prune(CacheFolder(tmp_path / "cache"))
    assert open_store().get(keys).missing == before
