"""One file over HTTP: resumed where it stopped, and never anything but what the hub describes."""

import errno
import hashlib

import pytest
from huggingface_hub import constants

from helpers.fake_hub import COMMIT, FakeHub
from tove_lvlm.config import UserError
from tove_lvlm.storage import WeightsError
from tove_lvlm.weights import download as module
from tove_lvlm.weights.download import PART, RemoteFile, download, is_here, size_here

REPO, NAME = "owner/name", "sub/weights.bin"
CONTENT = bytes(range(256)) * 40


@pytest.fixture
def served(monkeypatch):
    with FakeHub({REPO: {NAME: CONTENT, "config.json": b"{}"}}) as fake:
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", fake.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "ENDPOINT", fake.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
        yield fake


def remote(content: bytes = CONTENT) -> RemoteFile:
    return RemoteFile(
        repo=REPO, commit=COMMIT, name=NAME, size=len(content), sha256=hashlib.sha256(content).hexdigest()
    )


def test_a_file_arrives_once(served, tmp_path):
    seen = []
    assert download(remote(), tmp_path, seen.append)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert seen[-1] == len(CONTENT)
    assert not download(remote(), tmp_path)
    assert served.downloads(NAME) == ["bytes=0-"]
    assert is_here(remote(), tmp_path)
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["weights.bin"]


def test_a_cut_connection_is_taken_up_where_it_broke(served, tmp_path):
    served.cut[NAME] = 3000
    assert download(remote(), tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    first, second = served.downloads(NAME)
    assert first == "bytes=0-"
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= 3000


@pytest.mark.parametrize("wrong", [False, True])
def test_an_interrupted_download_goes_on_in_the_next_call(served, tmp_path, wrong):
    """Unless its beginning turns out to be that of another file: then once more from the start."""
    part = tmp_path / (NAME + PART)
    part.parent.mkdir()
    part.write_bytes(b"?" * 4000 if wrong else CONTENT[:4000])
    assert size_here(remote(), tmp_path) == 4000
    assert download(remote(), tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert served.downloads(NAME) == ["bytes=4000-", *(["bytes=0-"] if wrong else [])]


def test_a_file_that_was_damaged_is_fetched_again(served, tmp_path):
    download(remote(), tmp_path)
    (tmp_path / NAME).write_bytes(CONTENT[:-1] + b"?")
    assert not is_here(remote(), tmp_path)
    assert download(remote(), tmp_path)
    assert is_here(remote(), tmp_path)


def test_another_content_is_refused_and_removed(served, tmp_path):
    other = remote(CONTENT[:-1] + b"?")
    with pytest.raises(WeightsError, match="`sub/weights.bin` arrived with another checksum"):
        download(other, tmp_path)
    assert list((tmp_path / "sub").iterdir()) == []


def test_gits_own_hash_is_compared(served, tmp_path):
    small = RemoteFile(
        repo=REPO, commit=COMMIT, name="config.json", size=2, blob=hashlib.sha1(b"blob 2\0{}").hexdigest()
    )
    assert download(small, tmp_path)
    with pytest.raises(WeightsError, match=r"config.json` arrived"):
        download(RemoteFile(repo=REPO, commit=COMMIT, name="config.json", size=2, blob="0" * 40), tmp_path)


def test_no_network_is_given_up_after_a_few_tries(served, tmp_path):
    served.__exit__()
    with pytest.raises(Exception, match="onnection") as caught:
        download(remote(), tmp_path)
    assert not isinstance(caught.value, UserError)
    assert (tmp_path / (NAME + PART)).stat().st_size == 0


def test_a_full_disk_keeps_what_arrived(served, tmp_path, monkeypatch):
    def full(file, stream, progress):
        stream.write(CONTENT[:4000])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_stream", full)
    with pytest.raises(OSError, match="No space left"):
        download(remote(), tmp_path)
    assert size_here(remote(), tmp_path) == 4000


def test_two_processes_do_not_write_one_file(served, tmp_path):
    import fcntl

    part = tmp_path / (NAME + PART)
    part.parent.mkdir()
    with open(part, "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=f"another process is downloading {part}"):
            download(remote(), tmp_path)


@pytest.mark.parametrize("start", [0, 5000])
def test_more_than_the_hub_has_declared_is_not_written(served, tmp_path, start):
    part = tmp_path / (NAME + PART)
    part.parent.mkdir()
    part.write_bytes(CONTENT[:start])
    served.more[NAME] = 5_000_000
    with pytest.raises(WeightsError, match=r"sends more of `sub/weights.bin` than its 10240 bytes"):
        download(remote(), tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= len(CONTENT)
    assert len(served.downloads(NAME)) == 1


def test_a_connection_that_only_drips_is_given_up_and_gone_on_with_later(served, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PACE_SECONDS", 0.2)
    monkeypatch.setattr(module, "_PACE_BYTES", 1000)
    served.slow[NAME] = 0.005
    with pytest.raises(WeightsError, match=r"at less than 5000 bytes a second; the same command goes on from here"):
        download(remote(), tmp_path)
    assert 0 < size_here(remote(), tmp_path) < 1000
    served.slow.clear()
    assert download(remote(), tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT
