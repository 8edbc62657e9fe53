"""One process writes an output at a time; the lock goes with its process, however that ends."""

import os
import subprocess
import sys

import pytest

from tove_lvlm.config import UserError
from tove_lvlm.storage import locks

HOLD = """
import sys, time
from tove_lvlm.storage import locks
with getattr(locks, sys.argv[1])(sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def hold():
    """`hold(kind, path)`: another process that has the lock; killed at the end of the test."""
    started = []

    def start(kind, path):
        process = subprocess.Popen([sys.executable, "-c", HOLD, kind, str(path)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("kind", ["lock_folder", "lock_name"])
def test_another_process_is_named_and_its_death_frees_the_output(tmp_path, hold, kind):
    holder = hold(kind, tmp_path / "out")
    lock = getattr(locks, kind)
    with pytest.raises(UserError, match=f"out` is being written by process {holder.pid} on .*; wait for it, or name"):
        with lock(tmp_path / "out"):
            pass
    holder.kill()
    holder.wait()
    with lock(tmp_path / "out"):
        pass
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_twice_in_one_process_is_refused_and_the_first_keeps_its_lock(tmp_path, hold):
    with locks.lock_folder(tmp_path / "out"):
        with pytest.raises(UserError, match="by this process already"), locks.lock_folder(tmp_path / "x/../out"):
            pass
        probe = subprocess.run(
            [sys.executable, "-c", HOLD, "lock_folder", str(tmp_path / "out")], capture_output=True, text=True
        )
        assert f"being written by process {os.getpid()} on" in probe.stderr
    hold("lock_folder", tmp_path / "out")


def test_a_forked_worker_does_not_keep_the_lock(tmp_path, hold):
    """Data loaders' workers live some seconds longer than a killed run."""
    with locks.lock_folder(tmp_path / "out"):
        worker = os.fork()
        if not worker:
            os.execvp("sleep", ["sleep", "60"])
    try:
        hold("lock_folder", tmp_path / "out")
    finally:
        os.kill(worker, 9)
        os.waitpid(worker, 0)


def test_folder_is_removed_again_unless_something_is_in_it(tmp_path):
    with locks.lock_folder(tmp_path / "out"):
        assert os.listdir(tmp_path / "out") == [".tove-lock"]
    assert os.listdir(tmp_path) == []
    with locks.lock_folder(tmp_path / "out"):
        (tmp_path / "out" / "file").write_text("")
    assert os.listdir(tmp_path / "out") == ["file"]
    (tmp_path / "out" / "file").unlink()
    with locks.lock_folder(tmp_path / "out"):  # the user's own empty folder
        pass
    assert os.listdir(tmp_path) == ["out"]


def test_where_there_are_no_locks_one_line_says_so(tmp_path, monkeypatch, caplog):
    def lockf(*arguments):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "lockf", lockf)
    locks._warn_of_no_locks.cache_clear()
    for _ in range(3):
        with locks.lock_name(tmp_path / "out") as is_locked:
            assert not is_locked
    assert caplog.text.count("no locks on this file system (Function not implemented)") == 1
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/out` cannot be written: Not a directory; name another place"):
        with locks.lock_folder(tmp_path / "file" / "out"):
            pass
