"""Answers outlive kills: cut lines are dropped, runs do not mix, rank 0 waits for files and not for ever."""

import json

import pytest

from tove_lvlm import storage
from tove_lvlm.config import UserError
from tove_lvlm.eval.io.items import Item
from tove_lvlm.eval.io.problems import Problems
from tove_lvlm.eval.io.store import Shard, Store

ITEMS = [Item(question_id=key, image="a.jpg", text=f"what {key}?") for key in ("random/1", "7", "007", "x")]
IDENTITY = {"task": "pope", "model": "m" * 64, "decoding": {"num_beams": 1}}


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "run", ITEMS)
    assert store.prepare(IDENTITY) == set()
    return store


def write(store, rank, keys, launch="1", done=True, problems=None):
    with Shard(store.folder, rank, launch, "tiny") as shard:
        for key in keys:
            shard.write(next(item for item in ITEMS if item.question_id == key), f"said {key}", {})
        if done:
            shard.finish(problems or Problems())


def lines(store):
    return [json.loads(line) for line in (store.folder / "answers.jsonl").read_text().splitlines()]


def test_ranks_are_gathered_in_the_order_of_the_questions_in_llavas_form(store):
    problems = Problems()
    problems.add("unreadable image", "x")
    write(store, 1, ["007", "7"])
    write(store, 0, ["random/1"], problems=problems)
    assert store.wait(2, "1", patience=0) == {"unreadable image": ["x"]}
    assert list(store.gather()) == ["random/1", "7", "007"]
    rows = lines(store)
    assert [row["question_id"] for row in rows] == ["random/1", 7, "007"]
    assert list(rows[0]) == ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]
    assert rows[0]["prompt"] == "what random/1?"
    assert len({row["answer_id"] for row in rows}) == 3


def test_what_a_rank_was_killed_over_or_is_still_removing_does_not_stop_rank_0(store):
    shards = store.folder / "shards"
    (shards / ".00000.done.0123abcd.tove-tmp").mkdir()
    (shards / ".00000.done.0123abcd.tove-lock").touch()
    write(store, 0, ["random/1"])
    assert Store(store.folder, ITEMS).prepare(IDENTITY) == {"random/1"}
    assert list(shards.iterdir()) == []
    with storage.atomic_file(shards / "00001.done") as living:
        living.write_text("{}")
        store.finish()


def test_a_line_that_a_kill_cut_off_is_asked_again(store, caplog):
    write(store, 0, ["random/1", "7"], done=False)
    shard = store.folder / "shards" / "00000.jsonl"
    shard.write_bytes(shard.read_bytes()[:-9])
    again = Store(store.folder, ITEMS)
    assert again.prepare(IDENTITY) == {"random/1"}
    assert "00000.jsonl:2 is cut off" in caplog.text
    assert list((store.folder / "shards").iterdir()) == []
    write(again, 1, ["7", "x"], launch="2")
    assert list(again.gather()) == ["random/1", "7", "x"]


def test_other_runs_do_not_mix(store, tmp_path):
    write(store, 0, ["7"])
    other = IDENTITY | {"model": "n" * 64, "decoding": {"num_beams": 2}}
    with pytest.raises(UserError, match=r"of another run \(model: m+\.* there, n+\.* now; decoding: .*--output"):
        Store(store.folder, ITEMS).prepare(other)
    assert Store(store.folder, ITEMS).prepare(IDENTITY) == {"7"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "answers.jsonl").write_text("my own\n")
    with pytest.raises(UserError, match="is of no run of `tove eval`"):
        Store(tmp_path / "mine", ITEMS).prepare(IDENTITY)
    assert (tmp_path / "mine" / "answers.jsonl").read_text() == "my own\n"


def test_a_rank_that_is_gone_is_named_and_its_answers_are_kept(store):
    write(store, 0, ["random/1"])
    write(store, 1, ["7"], done=False)
    with pytest.raises(UserError, match=r"no sign of rank 1 for 0 s; all answers so far .* the same command goes on"):
        store.wait(2, "1", patience=0, pause=0.01)
    assert [row["question_id"] for row in lines(store)] == ["random/1", 7]


def test_the_end_of_an_earlier_launch_does_not_count(store):
    write(store, 0, ["random/1"], launch="1")
    with pytest.raises(UserError, match="no sign of rank 0"):
        store.wait(1, "2", patience=0, pause=0.01)


def test_a_smaller_run_forgets_nothing(store):
    write(store, 0, ["x", "7"])
    assert Store(store.folder, ITEMS).prepare(IDENTITY) == {"x", "7"}
    assert [row["question_id"] for row in lines(store)] == [7, "x"]


def test_an_end_that_another_launch_takes_away_was_read_in_time(store, monkeypatch):
    problems = Problems()
    problems.add("unreadable image", "x")
    write(store, 0, ["7"])
    write(store, 1, ["x"], problems=problems)
    read = store._done

    def read_and_lose(rank, launch):
        done = read(rank, launch)
        (store.folder / "shards" / f"{rank:05d}.done").unlink(missing_ok=True)
        return done

    monkeypatch.setattr(store, "_done", read_and_lose)
    assert store.wait(2, "1", patience=0) == {"unreadable image": ["x"]}
