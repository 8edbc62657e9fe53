"""A broken file of a checkpoint is one line that names it, whatever the libraries make of it."""

import json
import shutil

import pytest

from helpers.tiny_towers import hashes
from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.config import UserError

KINDS = ("tower", "stage1", "adapter", "merged")
USUAL = (b"[]",)
FURTHER = (b"{", b"", b"null", b"3", b"{}", b'{"a": 1}', b"\xff\xfe\x00", b'{"model_type": "bert"}', b"[" * 5000)
WEIGHTS = (b"", b"\x08", b"\xff" * 8, b"\x00" * 40, b"\x02\x00\x00\x00\x00\x00\x00\x00{}", b"PK\x03\x04 not a zip")


def opened(folder):
    """The error of opening a checkpoint; None when it opens."""
    try:
        open_checkpoint(folder)
    except UserError as error:
        return str(error)
    return None


def replaced(checkpoints, kind, tmp_path, name, content):
    folder = tmp_path / f"{kind}-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(checkpoints[kind], folder)
    (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("contents", [USUAL, pytest.param(FURTHER, marks=pytest.mark.full)], ids=["usual", "further"])
def test_a_broken_json(checkpoints, tmp_path, kind, contents):
    for path in sorted(checkpoints[kind].glob("*.json")):
        for content in contents:
            folder = replaced(checkpoints, kind, tmp_path, path.name, content)
            before = hashes(folder)
            message = opened(folder)
            assert hashes(folder) == before
            if message is not None:
                assert "\n" not in message
                assert len(message) < 600
                assert str(folder) in message


@pytest.mark.parametrize("kind", KINDS)
def test_broken_weights(checkpoints, tmp_path, kind):
    for path in sorted(checkpoints[kind].glob("*.safetensors")):
        for content in WEIGHTS:
            folder = replaced(checkpoints, kind, tmp_path, path.name, content)
            message = opened(folder)
            assert message is not None
            assert "\n" not in message
            assert str(folder) in message


NEEDED = {
    "tower": {"config.json", "model.safetensors"},
    "stage1": {"projector.safetensors", "tove_model.json"},
    "adapter": {"adapter_config.json", "adapter_model.safetensors", "non_lora.safetensors", "tove_model.json"},
    "merged": {"config.json", "model.safetensors", "tokenizer.json", "processor_config.json"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_missing(checkpoints, tmp_path, kind):
    needed = set()
    for path in sorted(checkpoints[kind].iterdir()):
        folder = replaced(checkpoints, kind, tmp_path, path.name, b"")
        (folder / path.name).unlink()
        needed |= {path.name} if opened(folder) is not None else set()
    assert needed == NEEDED[kind]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alora_invocation_tokens": [1]}, "its LoRA cannot be read: NotImplementedError"),
        ({"lora_alpha": float("nan")}, "holds NaN or infinity"),
    ],
)
def test_a_lora_that_cannot_be_merged(checkpoints, tmp_path, change, message):
    config = json.loads((checkpoints["adapter"] / "adapter_config.json").read_text()) | change
    folder = replaced(checkpoints, "adapter", tmp_path, "adapter_config.json", json.dumps(config).encode())
    with pytest.raises(UserError, match=message) as caught:
        open_checkpoint(folder)
    assert f"{folder}/adapter_config.json: " in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [{"model": True}, {"tower": [1]}, {"tower": "x" * 900}, {"image_aspect_ratio": "round"}, {"transparency": []}],
)
@pytest.mark.parametrize("kind", ["stage1", "adapter", "merged"])
def test_a_model_file_with_a_block_that_is_none(checkpoints, tmp_path, kind, change):
    about = json.loads((checkpoints[kind] / "tove_model.json").read_text()) | change
    folder = replaced(checkpoints, kind, tmp_path, "tove_model.json", json.dumps(about).encode())
    message = opened(folder)
    assert f"file `{folder}/tove_model.json`: `{next(iter(change))}` is " in message
    assert len(message) < 400


def test_weights_that_do_not_fit(checkpoints, tmp_path):
    for content in ({"hidden_size": 48}, {"num_hidden_layers": 9}):
        folder = shutil.copytree(checkpoints["merged"], tmp_path / str(content))
        config = json.loads((folder / "config.json").read_text())
        config["text_config"] |= content
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(UserError, match="its weights do not fit"):
            open_checkpoint(folder)
