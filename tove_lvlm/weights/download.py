"""One file from a hub, resumable and checked.

The hub's own client throws away what it has when it is interrupted; the files of a tower are gigabytes, so here the
part that arrived stays beside its place (NAME.part) and the next call asks for the rest.
"""

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from huggingface_hub import constants, get_session, hf_hub_url, hf_raise_for_status
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers

from .. import storage
from ..config import UserError
from ..storage import WeightsError

PART = ".part"
"""Ending of a file that has not arrived whole."""
_RETRIES = 5
_PACE_SECONDS, _PACE_BYTES = 60.0, 60_000
"""A connection that brings less in that time would keep a job for days."""
_TRY_AGAIN = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file of a hub repository at one commit, as the hub describes it."""

    repo: str
    commit: str
    name: str
    size: int
    """Bytes."""
    sha256: str | None = None
    """Of a large file (Git LFS)."""
    blob: str | None = None
    """Git's hash of any other file."""


def download(file: RemoteFile, folder: Path, progress: Callable[[int], None] = lambda size: None) -> bool:
    """Bring a file to `folder / file.name`, from where an earlier call has stopped.

    Args:
        file: As the hub describes it.
        folder: Of the repository.
        progress: Called with the bytes that are here.

    Returns:
        Whether anything had to be downloaded.

    Raises:
        WeightsError: What arrives is not what the hub describes; it is removed.
        UserError: Another process is at this file.
        OSError: No space left.
        Exception: The hub's answer (HfHubHTTPError), or the network's errors after five tries without a byte.
    """
    path = folder / file.name
    if is_here(file, folder):
        progress(file.size)
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + PART)
    with open(part, "ab") as stream:
        _lock(stream, part)
        resumed = stream.tell() > 0
        _receive(file, stream, progress)
        if resumed and not _matches(part, file):  # the beginning may be that of another file: once more from the start
            stream.truncate(0)
            stream.seek(0)
            _receive(file, stream, progress)
    if not _matches(part, file):
        part.unlink()
        raise WeightsError(f"`{file.repo}`: `{file.name}` arrived with another checksum than the hub states; try again")
    storage.sync_to_disk(part)
    os.replace(part, path)
    return True


def is_here(file: RemoteFile, folder: Path) -> bool:
    """Whether the whole file is in the repository's folder: its size and its checksum."""
    path = folder / file.name
    return path.is_file() and _matches(path, file)


def size_here(file: RemoteFile, folder: Path) -> int:
    """Bytes of an unfinished file that need not be downloaded again."""
    part = folder / (file.name + PART)
    return min(part.stat().st_size, file.size) if part.is_file() else 0


def _matches(path: Path, file: RemoteFile) -> bool:
    if path.stat().st_size != file.size:
        return False
    if file.sha256 is not None:
        return storage.fingerprint(path) == file.sha256
    if file.blob is not None:
        content = path.read_bytes()  # Git LFS has the large ones
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == file.blob
    return True


def _receive(file: RemoteFile, stream: BinaryIO, progress: Callable[[int], None]) -> None:
    """Append what is missing; a cut connection is taken up again."""
    if stream.tell() > file.size:
        stream.truncate(0)
        stream.seek(0)
    failures = 0
    error: Exception | None = None
    while stream.tell() < file.size:
        start = stream.tell()
        try:
            _stream(file, stream, progress)
        except HfHubHTTPError as answer:
            if answer.response is None or answer.response.status_code not in _TRY_AGAIN:
                raise
            error = answer
        except WeightsError:
            raise
        except OSError as failure:
            if failure.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            error = failure
        except Exception as failure:  # httpx's, whichever the hub's client uses
            error = failure
        failures = 0 if stream.tell() > start else failures + 1
        if failures > _RETRIES:
            raise error or WeightsError(f"`{file.repo}`: the hub sends nothing of `{file.name}`")
        time.sleep(min(failures, 3) ** 2 / 10)


def _stream(file: RemoteFile, stream: BinaryIO, progress: Callable[[int], None]) -> None:
    start = stream.tell()
    headers: dict[str, Any] = {**build_hf_headers(), "Accept-Encoding": "identity", "Range": f"bytes={start}-"}
    url = hf_hub_url(file.repo, file.name, revision=file.commit)
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
        hf_raise_for_status(response)
        if start and response.status_code == 200:  # all of it, though the rest was asked for
            stream.truncate(0)
            stream.seek(0)
        since, received = time.monotonic(), 0
        for chunk in response.iter_raw():  # as it comes: what a server has compressed all the same is not unpacked
            if stream.tell() + len(chunk) > file.size:
                raise WeightsError(f"`{file.repo}`: the hub sends more of `{file.name}` than its {file.size} bytes")
            stream.write(chunk)
            progress(stream.tell())
            received += len(chunk)
            if time.monotonic() - since > _PACE_SECONDS:
                if received < _PACE_BYTES:
                    raise WeightsError(
                        f"`{file.repo}`: the hub sends `{file.name}` at less than {_PACE_BYTES / _PACE_SECONDS:.0f} "
                        "bytes a second; the same command goes on from here later"
                    )
                since, received = time.monotonic(), 0


def _lock(stream: BinaryIO, part: Path) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"another process is downloading {part}") from error
