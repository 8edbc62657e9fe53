"""DeepSpeed unpickles a checkpoint's files: only what this user has signed is resumed from."""

import hashlib
import hmac
import json
import os
import stat

import pytest

from tove_lvlm.config import ConfigError
from tove_lvlm.train import checkpoint, manifest, signature

MANIFEST = {"step": 4, "files": {"a": 1}, "sha256": {"a": "00"}}


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("TOVE_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def test_hmac_of_the_manifest_with_a_key_that_only_its_user_reads(state):
    given = signature.sign(MANIFEST)
    key = bytes.fromhex((state / "checkpoint.key").read_text())
    assert len(key) == 32
    assert stat.S_IMODE((state / "checkpoint.key").stat().st_mode) == 0o600
    assert os.listdir(state) == ["checkpoint.key"]
    assert given == hmac.new(key, json.dumps(MANIFEST, sort_keys=True).encode(), hashlib.sha256).hexdigest()
    assert signature.sign(MANIFEST) == given
    assert signature.is_ours(MANIFEST | {"signature": given})


@pytest.mark.parametrize(
    "changed",
    [{"step": 5}, {"files": {"a": 2}}, {"more": 1}, {"signature": None}, {"signature": 3}, {"signature": "é"}],
)
def test_what_was_changed_is_not_ours(state, changed):
    assert not signature.is_ours(MANIFEST | {"signature": signature.sign(MANIFEST)} | changed)


def test_what_a_killed_run_left_of_a_key_goes(state):
    (state / ".checkpoint.key.0123abcd.tove-tmp").mkdir(parents=True)
    (state / ".checkpoint.key.0123abcd.tove-lock").touch()
    assert signature.sign(MANIFEST) is not None
    assert os.listdir(state) == ["checkpoint.key"]


def test_another_users_is_not_ours(state, monkeypatch):
    signed = MANIFEST | {"signature": signature.sign(MANIFEST)}
    monkeypatch.setenv("TOVE_STATE_DIR", str(state / "another"))
    assert not signature.is_ours(signed)
    signature.sign(MANIFEST)
    assert not signature.is_ours(signed)
    hmac_without_key = hmac.new(b"", json.dumps(MANIFEST, sort_keys=True).encode(), hashlib.sha256).hexdigest()
    (state / "another" / "checkpoint.key").write_text("")
    assert not signature.is_ours(MANIFEST | {"signature": hmac_without_key})


def test_places_of_the_key(monkeypatch, tmp_path):
    monkeypatch.delenv("TOVE_STATE_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert signature.key_file() == tmp_path / "tove_lvlm" / "checkpoint.key"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(signature.key_file()) == "/home/someone/.local/state/tove_lvlm/checkpoint.key"


def test_where_no_key_can_be_kept_training_goes_on_unsigned(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TOVE_STATE_DIR", str(tmp_path / "file" / "below"))
    assert signature.sign(MANIFEST) is None
    assert "resuming needs train.trust_checkpoint=true" in caplog.text
    assert not signature.is_ours(MANIFEST | {"signature": None})


def test_only_what_is_unpickled_must_be_signed(state, tmp_path):
    folder = tmp_path / "out" / "checkpoint-4"
    folder.mkdir(parents=True)
    names = ("trainable.safetensors", "scheduler.pt", "rank_0.pt", "identity.json")
    for name in names:
        (folder / name).write_text("{}")
    manifest.write_manifest(folder, [folder / name for name in names], step=4)
    assert checkpoint.newest(tmp_path / "out", pickled=True, trust=False) == folder
    (state / "checkpoint.key").unlink()
    assert checkpoint.newest(tmp_path / "out", pickled=False, trust=False) == folder
    assert checkpoint.newest(tmp_path / "out", pickled=True, trust=True) == folder
    with pytest.raises(ConfigError, match=r"not signed with your key \(.*y\).*train.trust_checkpoint=true"):
        checkpoint.newest(tmp_path / "out", pickled=True, trust=False)
