"""Files and folders are written whole or not at all, and what a killed process leaves is cleared."""

import errno
import os
import signal
import subprocess
import sys
import threading

import pytest

from tove_lvlm import storage
from tove_lvlm.config import UserError


def fill_the_disk(writing) -> None:
    with writing as temporary:
        (temporary / "half" if temporary.is_dir() else temporary).write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_atomic_file_replaces_on_success(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    with storage.atomic_file(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()
    with storage.atomic_file(path) as temporary:
        temporary.write_text("two")
        assert path.read_text() == "one"
    assert path.read_text() == "two"
    assert os.listdir(path.parent) == ["file.txt"]


def test_atomic_file_leaves_the_old_one_on_failure(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="No space"):
        fill_the_disk(storage.atomic_file(path))
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_atomic_file_is_readable_by_others(tmp_path):
    with storage.atomic_file(tmp_path / "file") as temporary:
        temporary.write_text("x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_atomic_dir(tmp_path):
    path = tmp_path / "folder"
    with storage.atomic_dir(path) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "one").write_text("1")
        assert not path.exists()
    with pytest.raises(OSError, match="No space"):
        fill_the_disk(storage.atomic_dir(path))
    assert [str(p.relative_to(path)) for p in sorted(path.rglob("*"))] == ["sub", "sub/one"]
    with storage.atomic_dir(path) as temporary:
        (temporary / "two").write_text("2")
    assert os.listdir(path) == ["two"]
    assert os.listdir(tmp_path) == ["folder"]


def test_atomic_dir_puts_the_old_one_back_when_the_last_step_fails(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("old")
    real, calls = os.replace, []

    def replace(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError("no")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="no"), storage.atomic_dir(path) as temporary:
        (temporary / "new").write_text("new")
    assert os.listdir(path) == ["old"]
    assert os.listdir(tmp_path) == ["folder"]


def test_without_replace_what_appeared_meanwhile_stays(tmp_path):
    path = tmp_path / "folder"

    def make_while_another_does() -> None:
        with storage.atomic_dir(path, replace=False) as temporary:
            (temporary / "mine").write_text("mine")
            path.mkdir()
            (path / "theirs").write_text("theirs")

    with pytest.raises(UserError, match="folder` has appeared meanwhile and is not replaced"):
        make_while_another_does()
    assert os.listdir(path) == ["theirs"]
    assert os.listdir(tmp_path) == ["folder"]
    (path / "theirs").unlink()
    with storage.atomic_dir(path, replace=False) as temporary:  # an empty folder is nothing that can be lost
        (temporary / "mine").write_text("mine")
    assert os.listdir(path) == ["mine"]


# ---- killed processes ----

KILLED = """
import os, signal, sys
from tove_lvlm import storage
kind, path, moment = sys.argv[1:]
if moment == "between the renames":
    storage.atomic._move = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
with getattr(storage, kind)(path) as temporary:
    (temporary / "half" if temporary.is_dir() else temporary).write_text("half")
    if moment == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(kind, path, moment="writing"):
    run = subprocess.run([sys.executable, "-c", KILLED, kind, str(path), moment])
    assert run.returncode == -signal.SIGKILL


def test_leftovers_of_killed_processes_go_with_the_next_folder(tmp_path):
    killed("atomic_dir", tmp_path / "one")
    killed("atomic_file", tmp_path / "two")
    endings = sorted((name[:4], name.rpartition(".")[2]) for name in os.listdir(tmp_path))
    locks = [(".one", "tove-lock"), (".one", "tove-lock"), (".two", "tove-lock")]  # of the name, and of each temporary
    assert endings == sorted([*locks, (".one", "tove-tmp"), (".two", "tove-tmp")])
    (tmp_path / ".mine.tmp").write_text("not ours")
    with storage.atomic_dir(tmp_path / "three"):
        pass
    assert sorted(os.listdir(tmp_path)) == [".mine.tmp", "three"]


def test_between_the_renames_the_older_folder_comes_back(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "old").write_text("old")
    killed("atomic_dir", tmp_path / "one", "between the renames")
    assert not (tmp_path / "one").exists()
    storage.clear_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["one"]
    assert os.listdir(tmp_path / "one") == ["old"]


@pytest.mark.parametrize("kind", ["atomic_dir", "atomic_file"])
def test_what_a_living_process_writes_is_left_alone(tmp_path, kind):
    clear = [sys.executable, "-c", f"from tove_lvlm import storage; storage.clear_leftovers({str(tmp_path)!r})"]
    with getattr(storage, kind)(tmp_path / "one") as temporary:
        (temporary / "half" if temporary.is_dir() else temporary).write_text("half")
        subprocess.run(clear, check=True)
        with storage.atomic_dir(tmp_path / "two"):
            pass
        assert temporary.exists()
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]


def test_a_name_that_is_taken_for_a_leftover_is_given_up_for_another(tmp_path, monkeypatch):
    names = iter(["0123abcd", "4567abcd"])
    monkeypatch.setattr("secrets.token_hex", lambda size: next(names))
    with storage.atomic.lock_name(tmp_path / "file.0123abcd"), storage.atomic_file(tmp_path / "file") as temporary:
        assert temporary.parent.name == ".file.4567abcd.tove-tmp"
        temporary.touch()
    assert os.listdir(tmp_path) == ["file"]


def test_two_that_make_one_folder_do_not_meet(tmp_path):
    inside, refusals, done = threading.Event(), [], threading.Event()

    def second():
        inside.wait(10)
        try:
            with storage.atomic_dir(tmp_path / "one"):
                pass
        except UserError as error:
            refusals.append(str(error))
        done.set()

    other = threading.Thread(target=second)
    other.start()
    with storage.atomic_dir(tmp_path / "one") as temporary:
        (temporary / "first").write_text("")
        inside.set()
        done.wait(10)
    other.join()
    assert len(refusals) == 1
    assert "is being written" in refusals[0]
    assert os.listdir(tmp_path / "one") == ["first"]
