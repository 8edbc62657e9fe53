"""One backbone's shards: several processes, damage, a full disk, a folder that cannot be written, the limit."""

import errno
import multiprocessing
import os

import pytest
import torch

from tove_lvlm.config import UserError
from tove_lvlm.feature_cache import CacheFolder, folder, shard, store


def test_what_was_put_is_found_by_this_and_by_other_processes(open_store, keys, records):
    first = open_store()
    assert first.get(keys).missing == list(range(10))
    first.put(keys[:6], records[:6])
    other = open_store()
    assert other.num_images() == 6
    first.put(keys[6:8], records[6:8])
    for opened in (first, other, open_store()):
        found = opened.get(keys)
        assert found.missing == [8, 9]
        assert torch.equal(found.records_BR[:8], records[:8])


def test_an_image_that_comes_twice_in_a_batch_is_written_once(open_store, keys, records):
    opened = open_store()
    opened.put([keys[0], keys[1], keys[0]], records[[0, 1, 0]])
    (data,) = opened.path.glob("*.data")
    assert data.stat().st_size == shard.DATA_HEADER + 2 * records.shape[1]


def write(open_store, numbers: range) -> None:
    opened = open_store()
    for number in numbers:
        record = opened.codec.encode(torch.full((1, 3, 5), float(number))).records_BR
        opened.put([number.to_bytes(16, "little")], record)
    opened.close()


def test_two_processes_fill_one_cache(open_store):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write, args=(open_store, numbers)) for numbers in (range(60), range(40, 100))]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    opened = open_store()
    found = opened.get([number.to_bytes(16, "little") for number in range(100)])
    assert found.missing == []
    features = opened.codec.decode(found.records_BR, torch.float32, torch.device("cpu"))
    assert features.flatten(1).mean(1).tolist() == list(range(100))
    kinds = sorted(path.suffix for path in opened.path.iterdir())
    assert kinds == [".data", ".data", ".index", ".index", ".json"]  # no lock is left


def test_what_is_damaged_is_missing_said_once_and_found_again_once_it_is_put_anew(open_store, keys, records, caplog):
    open_store().put(keys, records)
    (data,) = (open_store().path).glob("*.data")
    content = bytearray(data.read_bytes())
    for number in (3, 4):
        content[shard.DATA_HEADER + number * records.shape[1] + 5] ^= 1
    data.write_bytes(content)
    opened = open_store()
    assert opened.get(keys).missing == [3, 4]
    assert [record.message.count(str(data)) for record in caplog.records] == [1]
    opened.put(keys[3:5], records[3:5])
    for again in (opened, open_store()):
        found = again.get(keys)
        assert found.missing == []
        assert torch.equal(found.records_BR, records)


def test_a_torn_end_costs_its_batch_alone(open_store, keys, records):
    opened = open_store()
    opened.put(keys[:5], records[:5])
    opened.put(keys[5:], records[5:])
    opened.close()
    (index,) = opened.path.glob("*.index")
    whole = index.read_bytes()
    for cut in (1, 50, 12 + 5 * shard.ENTRY.itemsize):
        index.write_bytes(whole[:-cut])
        again = open_store()
        assert again.get(keys).missing == [5, 6, 7, 8, 9]
    again.put(keys[5:], records[5:])
    assert open_store().get(keys).missing == []


def test_a_foreign_file_is_left_out_and_left_alone(open_store, keys, records, caplog):
    open_store().put(keys[:2], records[:2])
    foreign = open_store().path / "0123456789abcdef.index"
    foreign.write_bytes(b"something else entirely" * 9)
    opened = open_store()
    assert opened.get(keys[:2]).missing == []
    assert "0123456789abcdef.index` is no shard of this backbone's features" in caplog.text
    assert foreign.read_bytes() == b"something else entirely" * 9


@pytest.mark.parametrize("at", range(1, 5))
def test_a_full_disk_ends_adding_with_one_line_and_leaves_whole_batches(
    open_store, keys, records, monkeypatch, caplog, at
):
    opened = open_store()
    opened.put(keys[:3], records[:3])
    inner, calls = os.write, []

    def full(handle, content):
        calls.append(1)
        if len(calls) < at:
            return inner(handle, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shard.os, "write", full)
    opened.put(keys[3:6], records[3:6])
    monkeypatch.setattr(shard.os, "write", inner)
    opened.put(keys[6:], records[6:])
    assert [record.message for record in caplog.records] == [
        f"expert cache {opened.cache.path}: nothing is added any more: No space left on device"
    ]
    assert opened.get(keys).missing == list(range(3, 10))
    assert open_store().get(keys).missing == list(range(3, 10))
    (data,) = opened.path.glob("*.data")
    assert data.stat().st_size == shard.DATA_HEADER + 3 * records.shape[1]


def test_a_folder_that_cannot_be_written_is_read(open_store, keys, records, monkeypatch, caplog):
    open_store().put(keys[:5], records[:5])
    inner = os.open

    def read_only(path, flags, *mode):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return inner(path, flags, *mode)

    monkeypatch.setattr(os, "open", read_only)
    opened = open_store()
    found = opened.get(keys)
    assert torch.equal(found.records_BR[:5], records[:5])
    opened.put(keys[5:], records[5:])
    opened.put(keys[5:], records[5:])
    assert caplog.text.count("nothing is added any more") == 1
    assert "Read-only file system" in caplog.text
    assert opened.get(keys).missing == [5, 6, 7, 8, 9]


def test_the_folders_size_is_looked_up_now_and_then_and_the_limit_is_kept(tmp_path, monkeypatch):
    opened = CacheFolder(tmp_path / "cache", size_gb=1e-3)
    looked, added = [], 0
    monkeypatch.setattr(opened, "num_bytes", lambda: looked.append(added) or added)
    while opened.takes(1000):
        added += 1000
    assert added == 10**6
    assert len(looked) < 120, "of 1,001 batches"
    assert looked[:2] == [0, 63_000], "one batch, and a sixteenth of what was free"


def test_nothing_is_added_beyond_the_limit(open_store, keys, records, caplog):
    opened = open_store()
    opened.put(keys[:4], records[:4])
    room = (opened.cache.num_bytes() + 3 * records.shape[1]) / folder.GB
    limited = open_store(size_gb=room)
    limited.put(keys[4:6], records[4:6])  # a shard of its own, whose headers count too
    limited.put(keys[6:8], records[6:8])
    limited.put(keys[8:], records[8:])
    assert limited.get(keys).missing == [6, 7, 8, 9]
    assert caplog.text.count("is reached (train.expert_cache_size_gb)") == 1


def test_a_large_shard_is_followed_by_another(open_store, keys, records, monkeypatch):
    monkeypatch.setattr(store, "SHARD_BYTES", shard.DATA_HEADER + records.shape[1])
    opened = open_store()
    for number in range(6):
        opened.put(keys[number : number + 1], records[number : number + 1])
    assert len(list(opened.path.glob("*.data"))) == 3
    assert opened.get(keys[:6]).missing == []
    assert torch.equal(open_store().get(keys[:6]).records_BR, records[:6])


def test_folders_that_are_no_cache_are_refused_and_not_touched(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match=r"holds other files and no expert_cache\.json; name a folder of its own"):
        CacheFolder(photos)
    with pytest.raises(UserError, match="is a file; name a folder"):
        CacheFolder(photos / "a.jpg")
    with pytest.raises(UserError, match="holds no expert cache"):
        CacheFolder(tmp_path / "nowhere", make=False)
    with pytest.raises(UserError, match="cannot be written"):
        CacheFolder("/proc/cache")
    assert [path.name for path in photos.iterdir()] == ["a.jpg"]
    assert not (tmp_path / "nowhere").exists()
    newer = CacheFolder(tmp_path / "newer").path / folder.MARKER
    newer.write_text('{"format": 99}')
    with pytest.raises(UserError, match="is of format 99; this version reads 1"):
        CacheFolder(tmp_path / "newer")
