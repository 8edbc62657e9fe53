"""Where a command may write: never into what it reads, never over what it did not make."""

import contextlib
import os

import pytest
from safetensors import SafetensorError

from tove_lvlm import storage
from tove_lvlm.config import UserError


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "models" / "one"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("models/one", "is the input"),
        ("models/../models/one", "is the input"),
        ("link", "is the input"),
        ("models/one/out", "lies in the input"),
        ("link/a/b", "lies in the input"),
        ("models", "contains the input"),
        (".", "contains the input"),
        ("models/one/config.json", "is the input"),
    ],
)
def test_outputs_in_the_way_of_an_input(tmp_path, model, output, message):
    (tmp_path / "link").symlink_to(model)
    inputs = [model / "config.json"] if "json" in output else [model]
    with pytest.raises(UserError, match=f"output `.*` {message} `.*one.*`"):
        storage.refuse_inputs(tmp_path / output, inputs)
    with pytest.raises(UserError, match=message), storage.new_folder(tmp_path / output, *inputs):
        pass
    assert sorted(os.listdir(tmp_path)) == ["link", "models"]
    assert os.listdir(model) == ["config.json"]


def test_outputs_beside_an_input(tmp_path, model):
    for output in ("models/two", "models/one-more", "models/on", "else"):
        storage.refuse_inputs(tmp_path / output, [model])
    storage.refuse_inputs(tmp_path / "models", [model], may_contain=True)
    with pytest.raises(UserError, match="lies in"):
        storage.refuse_inputs(model / "out", [model], may_contain=True)


def test_new_folder_is_whole_or_not_there(tmp_path):
    with storage.new_folder(tmp_path / "out") as writing:
        (writing / "file").write_text("all")
    assert os.listdir(tmp_path / "out") == ["file"]
    with pytest.raises(UserError, match="exists already"), storage.new_folder(tmp_path / "out"):
        pass
    with contextlib.suppress(ZeroDivisionError), storage.new_folder(tmp_path / "other") as writing:
        (writing / "file").write_text("half")
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["out"]


def test_a_run_that_goes_on_removes_what_a_killed_one_left_half_written(tmp_path):
    (tmp_path / "run" / ".record.json.0123abcd.tove-tmp").mkdir(parents=True)
    (tmp_path / "run" / ".record.json.0123abcd.tove-lock").touch()
    (tmp_path / "run" / "answers.jsonl").touch()
    with storage.run_folder(tmp_path / "run"):
        pass
    assert os.listdir(tmp_path / "run") == ["answers.jsonl"]


def test_a_link_to_nowhere_is_something_that_exists(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="exists already"), storage.new_folder(tmp_path / "link"):
        pass


def test_full_disk_is_one_line_whoever_says_it(tmp_path):
    full = "out` cannot be written: No space left on device; name another place"
    with pytest.raises(UserError, match=full), storage.new_folder(tmp_path / "out"):
        raise OSError(28, "No space left on device")
    with pytest.raises(UserError, match=full), storage.new_folder(tmp_path / "out"):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(UserError, match="no weights"), storage.new_folder(tmp_path / "out"):
        raise storage.MissingWeightsError("no weights")
    assert os.listdir(tmp_path) == []


def test_an_input_that_cannot_be_read_is_not_told_as_an_output_that_cannot_be_written(tmp_path):
    for name in ("other", "out2", "deep/out"):
        with pytest.raises(PermissionError), storage.new_folder(tmp_path / "out"):
            raise PermissionError(13, "Permission denied", str(tmp_path / name))
    for name in ("out", "out/file", ".out.0123.tove-tmp/file", "."):
        with pytest.raises(UserError, match="out` cannot be written: Permission denied"):
            with storage.told_disk_errors(tmp_path / "out"):
                raise PermissionError(13, "Permission denied", str(tmp_path / name))
