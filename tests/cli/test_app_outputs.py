"""Every command that writes: never into what it reads, and a refusal changes nothing."""

import contextlib
import resource
import shutil

import pytest

from helpers.pictures import paint
from helpers.tiny_towers import hashes
from tove_lvlm.storage import locks
from tove_lvlm.world.benchmarks import write_benchmarks

COMMANDS = {
    "export": ("export", "{model}", "--output", "{output}"),
    "export merged": ("export", "{model}", "--output", "{output}", "--format", "merged"),
    "export transformers": ("export", "{model}", "--output", "{output}", "--format", "transformers"),
    "export remote-code": ("export", "{model}", "--output", "{output}", "--format", "remote-code"),
    "eval": ("eval", "pope", "--model", "{model}", "--data", "{data}", "--output", "{output}"),
    "usage": ("usage", "{model}", "--images", "{images}", "--output", "{output}"),
    "gates": ("gates", "{model}", "{images}/0.png", "--output", "{output}"),
    "report": ("report", "{model}", "--output", "{output}"),
    "graft": ("graft", "{model}", "--tower", "{tower}", "--output", "{output}"),
    "detach": ("detach", "{model}", "--experts", "depth", "--output", "{output}"),
    "fetch": ("fetch", "{model}", "--to", "{output}"),
    "merge": ("merge", "{model}", "--images", "{images}", "--output", "{output}"),
}
NEW_FOLDER = ("export", "export merged", "export transformers", "export remote-code", "graft", "detach")
OUTPUTS = {"the input": ".", "inside": "deep/llava-out", "around": ".."}


@pytest.fixture(scope="module")
def places(checkpoints, tiny_tower_yaml, tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    shutil.copytree(checkpoints["merged"], folder / "models" / "llava")
    paint(folder / "images" / "0.png", seed=0)
    write_benchmarks(folder / "data", 2)
    (folder / "models" / "llava" / "metrics.jsonl").write_text('{"step": 1, "max_steps": 1, "loss": 2.0}\n')
    return {
        "model": folder / "models" / "llava",
        "images": folder / "images",
        "data": folder / "data",
        "tower": tiny_tower_yaml,
    }


def call(tove, name, places, output):
    return tove(*(part.format(**places, output=output) for part in COMMANDS[name]))


@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_in_the_way_of_the_model(tove, places, name):
    root = places["model"].parent.parent
    before = hashes(root)
    for where, output in OUTPUTS.items():
        if (name, where) == ("fetch", "around"):  # a mirror may hold more than a tower
            continue
        code, _, err = call(tove, name, places, places["model"] / output)
        assert code == 2
        line = err.strip().splitlines()[-1]
        assert line.startswith("error: ")
        assert f"the input `{places['model']}" in line
        assert hashes(root) == before


@pytest.mark.parametrize(
    "name", [name for name in COMMANDS if name not in ("eval", "usage", "gates", "report", "merge", "fetch")]
)
def test_what_exists_is_not_replaced(tove, places, tmp_path, name):
    output = tmp_path / "llava-filled"
    output.mkdir()
    (output / "thesis.tex").write_text("years of work")
    code, _, err = call(tove, name, places, output)
    assert code == 2
    assert "exists already" in err
    assert hashes(tmp_path).keys() == {"llava-filled/thesis.tex"}


@pytest.mark.parametrize("name", ["eval", "usage", "merge"])
def test_an_output_that_another_run_writes(tove, places, tmp_path, name):
    with locks.lock_folder(tmp_path / "out"):
        code, _, err = call(tove, name, places, tmp_path / "out")
        assert code == 2
        assert "is being written by this process" in err
        assert hashes(tmp_path).keys() == {"out/.tove-lock"}


@pytest.fixture
def full_disk():
    """No file can get longer than 300 bytes, which is an error of the disk (EFBIG) for whoever writes one."""

    @contextlib.contextmanager
    def full():
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return full


@pytest.mark.parametrize(
    "name", ["export", "export remote-code", "eval", "usage", "gates", "report", "detach", "merge"]
)
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tove, places, tmp_path, full_disk, name):
    root = places["model"].parent.parent
    before = hashes(root)
    with full_disk():
        code, _, err = call(tove, name, places, tmp_path / "llava-out")
    assert code in (1, 2)
    line = err.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert "File too large" in line
    assert hashes(root) == before
    left = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
    assert left <= ({"llava-out"} if name in ("eval", "usage", "merge") else set())
    assert not [path for path in tmp_path.rglob(".*") if "tove-" in path.name]
