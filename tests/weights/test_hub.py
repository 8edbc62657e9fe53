"""A hub id becomes files here: one format, from the mirror, the cache, or by download from a local hub."""

import json

import pytest
import torch
from huggingface_hub import constants

from helpers.fake_hub import COMMIT, FakeHub
from tove_lvlm import storage
from tove_lvlm.config import UserError
from tove_lvlm.config.sources import WeightSource
from tove_lvlm.storage import MissingWeightsError
from tove_lvlm.weights import hub
from tove_lvlm.weights.sources import ChecksumError, fetch, recorded, status, verify

REPO = "owner/name"


def tensors(value: float) -> bytes:
    from safetensors.torch import save

    return save({"a": torch.full((300,), value)}, metadata={"format": "pt"})


FILES = {
    "config.json": b"{}",
    "README.md": b"about",
    "model.safetensors": tensors(1),
    "pytorch_model.bin": b"\0" * 2000,
    "tf_model.h5": b"\0" * 2000,
    "own.pth": b"\0" * 2000,
    "tokenizer.json": b"{}",
}


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A hub with one repository that is asked in place of the real one; the cache is empty."""
    with FakeHub({REPO: dict(FILES)}) as fake:
        online(monkeypatch, fake.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield fake


def online(monkeypatch, url: str | None) -> None:
    monkeypatch.delenv(hub.MIRROR_VARIABLE, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", url is None)
    if url is not None:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", url)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["pytorch_model.bin", "model.safetensors", "open_clip_model.safetensors"], "model.safetensors"),
        (["open_clip_pytorch_model.bin", "open_clip_model.safetensors", "x.bin"], "open_clip_model.safetensors"),
        (["pytorch_model.bin", "open_clip_pytorch_model.bin"], "pytorch_model.bin"),
        (["model.safetensors.index.json", "pytorch_model.bin"], "model.safetensors.index.json"),
    ],
)
def test_one_format_is_chosen(names, chosen):
    assert hub.choose(names, None, REPO) == chosen


def test_a_pattern_chooses_among_the_standard_names():
    names = ["model.safetensors", "open_clip_model.safetensors", "open_clip_pytorch_model.bin", "open_clip_other.bin"]
    assert hub.choose(names, "open_clip_*", REPO) == "open_clip_model.safetensors"
    assert hub.choose([names[0], *names[2:]], "open_clip_*", REPO) == "open_clip_pytorch_model.bin"
    assert hub.choose(names, "*.bin", REPO) == "open_clip_pytorch_model.bin"
    with pytest.raises(MissingWeightsError, match="holds none of open_clip_model.safetensors, open_clip_pytorch_model"):
        hub.choose(["model.safetensors"], "open_clip_*", REPO)


def test_what_cannot_be_chosen():
    with pytest.raises(MissingWeightsError, match="`owner/name` has no file `mode.pth`; did you mean `model.pth`"):
        hub.choose(["model.pth"], "mode.pth", REPO)
    with pytest.raises(MissingWeightsError, match="holds none of .*`file` can name one of `model.pth`"):
        hub.choose(["model.pth", "README.md"], None, REPO)


def test_only_what_is_needed_is_downloaded_and_then_found_offline(served, monkeypatch):
    source = WeightSource(pretrained=REPO)
    assert status(source).state == "missing"
    folder = fetch(source, weights=False)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json"]
    assert status(source).state == "missing"
    folder = fetch(source)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert fetch(WeightSource(pretrained=REPO, file="own.pth")).read_bytes() == FILES["own.pth"]
    assert status(source).state == "present"
    assert recorded(source, None, folder)["revision"] == COMMIT
    online(monkeypatch, None)
    asked = len(served.asked)
    for revision in (None, "main", COMMIT):
        assert fetch(WeightSource(pretrained=REPO, revision=revision)) == folder
    with pytest.raises(MissingWeightsError, match="`owner/name` is no file .*HF_HUB_OFFLINE is set.*`v1` is not in th"):
        fetch(WeightSource(pretrained=REPO, revision="v1"))
    assert len(served.asked) == asked


def test_of_weights_that_lie_side_by_side_the_ones_that_fit_are_taken(served):
    """As timm's repositories have them: its own and open_clip's, both downloaded for two experts of one tower."""
    served.repositories[REPO]["open_clip_model.safetensors"] = tensors(2)
    own, other = WeightSource(pretrained=REPO), WeightSource(pretrained=REPO, file="open_clip_*")
    fetch(own)
    assert status(other).state == "missing"
    for source, value in ((own, 1.0), (other, 2.0), (own, 1.0)):
        assert storage.load_tensors(fetch(source))["a"][0] == value
    entry = recorded(other, None, fetch(other))
    assert (entry["file"], entry["revision"]) == ("open_clip_model.safetensors", COMMIT)


def test_shards_come_with_their_index(served):
    index = {"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}
    files = {"part-1.safetensors": tensors(1), "part-2.safetensors": tensors(2), "part-3.safetensors": tensors(3)}
    served.repositories["owner/shards"] = {"model.safetensors.index.json": json.dumps(index).encode(), **files}
    folder = fetch(WeightSource(pretrained="owner/shards"))
    assert [path.name for path in storage.weight_files(folder)] == ["part-1.safetensors", "part-2.safetensors"]
    assert not (folder / "part-3.safetensors").exists()
    del served.repositories["owner/shards"]["part-2.safetensors"]
    with pytest.raises(MissingWeightsError, match="names `part-2.safetensors`, which it does not have"):
        hub.needed(served.repositories["owner/shards"], None, True, "o/n", lambda name: folder / name)


def test_what_is_in_the_cache_serves_when_the_hub_does_not_answer(served, monkeypatch):
    folder = fetch(WeightSource(pretrained=REPO))
    online(monkeypatch, "http://127.0.0.1:9")
    for revision in (None, COMMIT):
        assert fetch(WeightSource(pretrained=REPO, revision=revision)) == folder
    with pytest.raises(MissingWeightsError, match=r"no network to http://127.0.0.1:9\?\): `owner/other` is not in the"):
        fetch(WeightSource(pretrained="owner/other"))


def test_what_the_hub_refuses_is_said(served):
    served.gated.add(REPO)
    with pytest.raises(MissingWeightsError, match=r"gated: accept its terms at http.*owner/name and give a token"):
        fetch(WeightSource(pretrained=REPO))
    with pytest.raises(MissingWeightsError, match="404: no such repository"):
        fetch(WeightSource(pretrained="owner/gone"))
    with pytest.raises(MissingWeightsError, match="it has no revision `v7`"):
        fetch(WeightSource(pretrained=REPO, revision="v7"))


# ---- mirror ----


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A mirror folder that holds one repository, with no network."""
    folder = tmp_path / "mirror"
    (folder / REPO).mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (folder / REPO / name).write_bytes(FILES[name])
    sizes = {name: {"size": len(FILES[name]), "sha256": None} for name in ("config.json", "model.safetensors")}
    record = {"repo": REPO, "revision": "v1", "commit": COMMIT, "files": sizes}
    (folder / REPO / hub.RECORD).write_text(json.dumps(record))
    online(monkeypatch, None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(hub.MIRROR_VARIABLE, str(folder))
    return folder


@pytest.mark.parametrize("revision", [None, "v1", COMMIT])
def test_mirror(mirror, revision):
    source = WeightSource(pretrained=REPO, revision=revision)
    assert fetch(source) == fetch(source, weights=False) == mirror / REPO
    assert status(source).place == str(mirror / REPO)
    assert recorded(source, None, fetch(source))["revision"] == COMMIT


def test_mirror_with_another_revision_is_refused(mirror):
    with pytest.raises(UserError, match=rf"at revision `v2`, and the mirror has it at revision `v1` \({COMMIT[:12]}\)"):
        fetch(WeightSource(pretrained=REPO, revision="v2"))
    checksum = storage.fingerprint(mirror / REPO / "model.safetensors")
    compared = WeightSource(pretrained=REPO, revision="v2", sha256=checksum)  # says more than a revision
    assert fetch(compared) == mirror / REPO
    assert status(compared).state == "present"
    (mirror / REPO / hub.RECORD).unlink()
    assert fetch(WeightSource(pretrained=REPO)) == mirror / REPO
    with pytest.raises(UserError, match="the mirror has it at one it has no record of"):
        fetch(WeightSource(pretrained=REPO, revision="v1"))


def test_mirror_that_was_copied_with_errors(mirror):
    file, record = mirror / REPO / "model.safetensors", mirror / REPO / hub.RECORD
    known = json.loads(record.read_text())
    known["files"]["model.safetensors"]["sha256"] = storage.fingerprint(file)
    record.write_text(json.dumps(known))
    source = WeightSource(pretrained=REPO)
    assert status(source).state == "present"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert status(source, checksum=False).state == "present"
    assert status(source).state == "wrong checksum"
    with pytest.raises(ChecksumError, match=f"expected {known['files'][file.name]['sha256']}"):
        verify(source, fetch(source))


def test_mirror_that_is_not_complete(mirror, monkeypatch):
    file = mirror / REPO / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert status(WeightSource(pretrained=REPO)).state == "partial"
    with pytest.raises(MissingWeightsError, match="HF_HUB_OFFLINE is set.*model.safetensors` have .* bytes, expected"):
        fetch(WeightSource(pretrained=REPO))
    file.unlink()
    assert "`model.safetensors` has not been fetched to its end" in status(WeightSource(pretrained=REPO)).problem
    found = status(WeightSource(pretrained="owner/other"))
    assert found.state == "missing"
    assert str(mirror) in found.problem
    monkeypatch.setenv(hub.MIRROR_VARIABLE, str(mirror / "gone"))
    with pytest.raises(UserError, match="TOVE_MIRROR=.*gone: there is no such folder"):
        fetch(WeightSource(pretrained=REPO))
