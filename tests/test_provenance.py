"""Where a number comes from."""

import re
import subprocess
import sys

import pytest

from tove_lvlm import provenance


def test_versions_are_those_of_installed_packages():
    found = provenance.versions(("torch", "no-such-package"))
    assert list(found) == ["python", "torch"]
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))


def test_commit_is_gits_and_marks_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert provenance.commit() == "unknown"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run([*git, *command], check=True)
    assert re.fullmatch(r"[0-9a-f]{7,}", provenance.commit())
    (tmp_path / "new").touch()
    assert provenance.commit().endswith("+")


def test_what_a_run_says_of_itself():
    found = provenance.of_run("cpu", 3)
    assert list(found) == ["versions", "commit", "hardware", "world_size"]
    assert (found["commit"], found["world_size"]) == (provenance.commit(), 3)
    assert found["versions"]["torch"] == provenance.versions(("torch",))["torch"]


def test_hardware_of_a_cpu_has_its_cores():
    assert re.search(r".+, \d+ cores$", provenance.hardware())


@pytest.mark.parametrize(
    ("capability", "fast"), [("AVX512", True), ("SVE256", True), ("AVX2", False), ("DEFAULT", False)]
)
def test_bf16_is_fast_where_torch_has_kernels(monkeypatch, capability, fast):
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    assert provenance.cpu_has_fast_bf16() is fast
