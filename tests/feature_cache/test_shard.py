"""A shard after a kill at any byte, with a flipped byte, and of somebody else."""

import pytest
import torch

from tove_lvlm.feature_cache.shard import (
    DATA_HEADER,
    ENTRY,
    INDEX_HEADER,
    ForeignShardError,
    ShardReader,
    ShardWriter,
)

KEY, SIZE = b"k" * 32, 64


@pytest.fixture
def shard(tmp_path):
    """(index, data, records) of a shard with blocks of two, one and two entries."""
    writer = ShardWriter(tmp_path, KEY, SIZE)
    records = torch.randint(0, 256, (5, SIZE), dtype=torch.uint8)
    for start, end in ((0, 2), (2, 3), (3, 5)):
        writer.append([bytes([number]) * 16 for number in range(start, end)], records[start:end])
    writer.close()
    return writer.index, writer.data, records


def readable(index) -> list[int]:
    """Numbers of the records that can be read."""
    reader, row = ShardReader(index, KEY, SIZE), torch.empty(SIZE, dtype=torch.uint8)
    return [int(e["record"]) for e in reader.new_entries() if reader.read(int(e["record"]), int(e["crc"]), row)]


def test_records_come_back(shard):
    index, data, records = shard
    reader, row = ShardReader(index, KEY, SIZE), torch.empty(SIZE, dtype=torch.uint8)
    entries = reader.new_entries()
    assert [entry["key"].tobytes() for entry in entries] == [bytes([number]) * 16 for number in range(5)]
    for entry, record in zip(entries, records, strict=True):
        assert reader.read(int(entry["record"]), int(entry["crc"]), row)
        assert torch.equal(row, record)
    assert not len(reader.new_entries())
    assert data.stat().st_size == DATA_HEADER + 5 * SIZE
    assert sorted(path.name for path in index.parent.iterdir()) == sorted([index.name, data.name])


def test_an_index_cut_at_any_byte_of_its_last_block_loses_that_block(shard):
    index, _, _ = shard
    whole = index.read_bytes()
    last = 12 + 2 * ENTRY.itemsize
    for cut in range(1, last + 1):
        index.write_bytes(whole[:-cut])
        assert readable(index) == [0, 1, 2]
    for size in range(INDEX_HEADER):
        index.write_bytes(whole[:size])
        with pytest.raises(ForeignShardError):
            readable(index)


def test_data_cut_at_any_byte_of_its_last_record_loses_that_record(shard):
    index, data, _ = shard
    whole = data.read_bytes()
    for cut in range(1, SIZE + 1):
        data.write_bytes(whole[:-cut])
        assert readable(index) == [0, 1, 2, 3]


def test_data_that_shrinks_while_it_is_mapped_is_told_and_does_not_end_the_process(shard):
    index, data, _ = shard
    reader, row = ShardReader(index, KEY, SIZE), torch.empty(SIZE, dtype=torch.uint8)
    entries = reader.new_entries()
    assert reader.read(4, int(entries[4]["crc"]), row)
    with data.open("r+b") as file:
        file.truncate(DATA_HEADER)
    assert not reader.read(4, int(entries[4]["crc"]), row)
    data.unlink()  # as by prune, which leaves what is mapped


@pytest.mark.parametrize("place", [0, 17, SIZE - 1])
def test_a_flipped_byte_of_a_record_is_found(shard, place):
    index, data, _ = shard
    content = bytearray(data.read_bytes())
    content[DATA_HEADER + 2 * SIZE + place] ^= 4
    data.write_bytes(content)
    assert readable(index) == [0, 1, 3, 4]


def test_a_flipped_byte_of_the_index_loses_what_comes_after_and_gives_nothing_wrong(shard):
    index, _, _ = shard
    whole = index.read_bytes()
    for place in range(INDEX_HEADER, len(whole)):
        content = bytearray(whole)
        content[place] ^= 1
        index.write_bytes(content)
        assert readable(index) in ([], [0, 1], [0, 1, 2])


def test_a_shard_of_another_part_or_of_something_else_is_refused(shard, tmp_path):
    index, data, _ = shard
    for key, size in ((b"x" * 32, SIZE), (KEY, SIZE * 2)):
        with pytest.raises(ForeignShardError, match="is no shard of this backbone's features"):
            ShardReader(index, key, size)
    data.write_bytes(b"a photograph" * 1000)
    with pytest.raises(ForeignShardError, match=data.name):
        ShardReader(index, KEY, SIZE)


def test_a_reader_sees_what_is_added_meanwhile(tmp_path):
    writer = ShardWriter(tmp_path, KEY, SIZE)
    reader, row = ShardReader(writer.index, KEY, SIZE), torch.empty(SIZE, dtype=torch.uint8)
    for number in range(3):
        record = torch.full((1, SIZE), number, dtype=torch.uint8)
        writer.append([bytes([number]) * 16], record)
        (entry,) = reader.new_entries()
        assert reader.read(number, int(entry["crc"]), row)
        assert torch.equal(row, record[0])
