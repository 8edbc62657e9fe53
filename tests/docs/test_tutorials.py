"""The tutorials' commands, typed as a reader types them: block by block, in a folder that looks like a fresh clone."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from helpers.paths import ROOT

TUTORIALS = sorted(ROOT.glob("docs/tutorials/*.md"))
BLOCK = re.compile(r"^```(?P<language>bash|python|text)\n(?P<text>.*?)^```$", re.M | re.S)
# What a clone has at its root and a tutorial uses; outputs/ is the test's own.
OF_THE_CLONE = ("projects", "scripts")


class Step(NamedTuple):
    """A block to run, and lines that must be in its output (a `text` block right behind it)."""

    command: list[str]
    text: str
    expected: list[str]


def steps(page: Path) -> list[Step]:
    found: list[Step] = []
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        language, text = match["language"], match["text"]
        if language == "text":
            found[-1].expected.extend(line for line in text.splitlines() if line.strip())
        else:
            command = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-c"]
            found.append(Step([*command, text], text, []))
    return found


def test_there_are_tutorials_and_each_has_commands():
    assert len(TUTORIALS) >= 6
    assert all(len(steps(page)) >= 2 for page in TUTORIALS)


@pytest.mark.full
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_commands_of_the_tutorial_run(page, tmp_path):
    for name in OF_THE_CLONE:
        (tmp_path / name).symlink_to(ROOT / name)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    on_cpu = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment = {**os.environ, **on_cpu, "PATH": path, "COLUMNS": "200"}
    for step in steps(page):
        done = subprocess.run(
            step.command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        said = f"{step.text}\n--- stdout\n{done.stdout[-3000:]}\n--- stderr\n{done.stderr[-3000:]}"
        assert done.returncode == 0, said
        missing = [line for line in step.expected if line not in done.stdout]
        assert not missing, f"not in the output: {missing}\n{said}"
