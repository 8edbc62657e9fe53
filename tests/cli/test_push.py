"""`tove push`: a tower or a whole model on a hub, as somebody else then finds it."""

import json
import os
import subprocess
import sys

import pytest
import torch
import yaml
from huggingface_hub import constants

from helpers import tiny_checkpoints, tiny_towers
from helpers.fake_hub import COMMIT, FakeHub
from helpers.without_package import ABSENT
from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.checkpoints.publish import stage
from tove_lvlm.tower.card import MARK

ELSEWHERE = (
    ABSENT
    + """
import torch
from transformers import AutoModel

tower = AutoModel.from_pretrained("me/tower", trust_remote_code=True)
pixels, tokens = torch.load(sys.argv[1])
assert torch.equal(tower(pixels).last_hidden_state, tokens)
try:
    tower.push_to_hub("me/again")
except ImportError as error:
    assert "tove_lvlm" in str(error), error
else:
    raise AssertionError
"""
)


@pytest.fixture
def hub(monkeypatch):
    """Empty, and this process may write there."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with FakeHub({}) as fake:
        monkeypatch.setattr(constants, "ENDPOINT", fake.url)
        yield fake


def front_of(card: bytes) -> dict:
    return yaml.safe_load(card.decode().split("---\n")[1])


@torch.no_grad()
def test_a_tower_is_loaded_elsewhere_by_the_code_that_goes_along(hub, tiny_tower, tmp_path):
    tiny_tower.sources = {"clip": {"source": "/home/me/clip", "license": "mit"}, "experts": {}}
    tiny_towers.wake(tiny_tower)
    address = tiny_tower.push_to_hub("me/tower", private=True, commit_message="first")
    assert address == f"{hub.url}/me/tower/commit/{COMMIT}"
    assert hub.commits == ["first"]
    files = hub.repositories["me/tower"]
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "README.md", "sources.json"} < files.keys()
    assert b"trust_remote_code=True" in files["README.md"]
    assert MARK.encode() in files["README.md"], "not transformers' empty form"
    assert json.loads(files["sources.json"])["clip"] == {"license": "mit"}
    for name, content in files.items():
        assert b"/home/me" not in content, name
    pixels = tiny_towers.pixels()
    torch.save((pixels, tiny_tower(pixels).last_hidden_state), tmp_path / "wanted.pt")
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "HF_HUB_OFFLINE")}
    places = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ELSEWHERE, tmp_path / "wanted.pt"],
        env=kept | places | {"OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@torch.no_grad()
def test_a_whole_model_goes_with_a_card_and_without_this_machines_places(hub, tove, checkpoints, tmp_path):
    source = checkpoints["merged"]
    code, out, _ = tove("push", source, "me/model", "--message", "second")
    assert (code, out.splitlines()[-1]) == (0, f"{hub.url}/me/model/commit/{COMMIT}")
    files = hub.repositories["me/model"]
    assert files["model.safetensors"] == (source / "model.safetensors").read_bytes()
    card = files["README.md"].decode()
    assert 'pipeline("image-text-to-text", model="me/model")' in card
    assert "tove chat a.png --model FOLDER " in card
    for name in tiny_towers.EXPERT_NAMES:
        assert f"| {name} |" in card
    assert front_of(files["README.md"])["pipeline_tag"] == "image-text-to-text"
    for name, content in files.items():
        assert str(source.parent).encode() not in content, name
        assert b"/tiny_tower" not in content, name
    for name, content in files.items():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(content)
    theirs, ours = (open_checkpoint(folder) for folder in (tmp_path / "copy", source))
    assert torch.equal(tiny_checkpoints.logits(theirs.model), tiny_checkpoints.logits(ours.model))
    assert theirs.image_aspect_ratio == ours.image_aspect_ratio


def test_saving_does_not_upload_a_part_of_a_tower(hub, tiny_tower, tmp_path):
    with pytest.raises(ValueError, match=r"would upload a part of the tower; call push_to_hub\(REPO\)"):
        tiny_tower.save_pretrained(tmp_path / "tower", push_to_hub=True)
    assert not (tmp_path / "tower").exists()
    tiny_tower.save_pretrained(tmp_path / "tower", push_to_hub=False)
    assert hub.repositories == {}


def test_what_is_uploaded_is_told_before(hub, tove, checkpoints):
    code, out, _ = tove("push", checkpoints["tower"], "me/tower", "--dry-run", "--json")
    told = json.loads(out)
    assert (code, told["commit"], hub.repositories) == (0, None, {})
    assert "tove_tower_modeling.py" in told["files"]
    assert told["files"]["model.safetensors"] == (checkpoints["tower"] / "model.safetensors").stat().st_size


def test_a_readme_of_ones_own_and_a_plain_clip(checkpoints, clip_only, tmp_path):
    stage(clip_only, "me/clip", tmp_path / "clip")
    card = (tmp_path / "clip" / "README.md").read_text()
    assert "sees through a plain `clip_vision_model`" in card
    assert "tove_lvlm  # pip" not in card, "stock transformers has all of it"
    own = tmp_path / "own"
    own.mkdir()
    for path in clip_only.iterdir():
        (own / path.name).symlink_to(path)
    (own / "README.md").write_text("Mine.")
    stage(own, "me/own", tmp_path / "staged")
    assert (tmp_path / "staged" / "README.md").read_text() == "Mine."


def test_what_cannot_be_pushed_is_one_line(hub, tove, checkpoints, monkeypatch):
    for kind in ("adapter", "stage1"):
        code, _, said = tove("push", checkpoints[kind], "me/model")
        assert (code, "tove export" in said, said.count("\n")) == (2, True, 1), said
    hub.may_write = False
    code, _, said = tove("push", checkpoints["merged"], "me/model")
    assert code == 2
    assert "`me/model` was not written" in said
    assert "a token that may write there is needed (`hf auth login`, or HF_TOKEN)" in said
    code, _, said = tove("push", checkpoints["merged"], "a/b/c")
    assert (code, "`a/b/c` is no name of a repository: expected OWNER/NAME" in said) == (2, True)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    code, _, said = tove("push", checkpoints["merged"], "me/model")
    assert (code, "no network to http://127.0.0.1:9?" in said) == (2, True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, _, said = tove("push", checkpoints["merged"], "me/model")
    assert (code, "HF_HUB_OFFLINE is set, so nothing can be uploaded" in said) == (2, True)
