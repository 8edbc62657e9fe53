"""What a shell may do to stdout and stderr: no traceback, nothing lost, nothing written into a wrong file."""

import io
import os
import subprocess
import sys

import pytest

from helpers.training import environment
from tove_lvlm import streams

TOVE = f"{sys.executable} -m tove_lvlm.cli"


def shell(command: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["bash", "-c", command], env=environment() | variables, capture_output=True, check=False)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_swallow_what_is_printed(closed):
    done = shell(f"{TOVE} experts {closed}")
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    assert (b"dinov2_l14" in done.stdout) == (closed == "2>&-")


def test_a_full_stdout_is_one_line_and_exit_code_2():
    done = shell(f"{TOVE} experts > /dev/full")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"No space left" in done.stderr


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("variables", [ASCII, pytest.param({"PYTHONIOENCODING": "ascii"}, marks=pytest.mark.full)])
def test_names_that_the_terminal_cannot_show_are_shown_by_number(variables, tmp_path):
    folder = tmp_path / "bäum"
    folder.mkdir()
    done = shell(f"{TOVE} info {folder}", **variables)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert rb"b\xe4um" in done.stderr or rb"b\udcc3\udca4um" in done.stderr


def test_what_is_opened_later_never_gets_the_number_of_a_closed_stream(tmp_path):
    code = (
        "from tove_lvlm.streams import prepare_streams; import os; prepare_streams(); "
        f"file = open({str(tmp_path / 'weights')!r}, 'wb'); print('noise', flush=True); os.write(2, b'noise')"
    )
    assert shell(f'{sys.executable} -c "{code}" <&- >&- 2>&-').returncode == 0
    assert (tmp_path / "weights").read_bytes() == b""


def test_a_training_goes_on_where_nothing_can_be_printed(monkeypatch):
    full = open("/dev/full", "w")  # noqa: SIM115  its closing fails, too
    monkeypatch.setattr(sys, "stdout", full)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    streams.prepare_streams(keep_going=True)
    print("lost", flush=True)
    first = sys.stdout
    streams.prepare_streams(keep_going=True)
    assert sys.stdout is first, "wrapped once"
    assert sys.stdout.fileno() == full.fileno()
    monkeypatch.undo()
    os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
    full.close()
