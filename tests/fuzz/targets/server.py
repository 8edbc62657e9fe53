"""`tove fetch` against a hub that lies: other lengths, contents, descriptions, states, headers and redirects.

Nothing leaves the machine. A fetch that succeeds has every file as the hub described it, by size and checksum, and
nothing else; one that is refused has no file that is not.
"""

import contextlib
import functools
import hashlib
import json
import types
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from huggingface_hub import constants
from hypothesis import strategies as st

from helpers.fake_hub import Answer, FakeHub
from helpers.tiny_towers import EXPERTS
from tove_lvlm.weights.download import PART
from tove_lvlm.weights.hub import RECORD

from .. import worlds
from ..mutate import byte_edits, edited, edited_bytes, json_edits, rarely
from ..property import Target, tove

NAMES = ("config.json", "preprocessor_config.json", "model.safetensors", "model.safetensors.index.json")
REQUESTS = ("owner/clip", "owner/cnn", *NAMES, "model-00001.safetensors")
"""What a lie is about: what the hub says of a repository, or a file."""
_STATES = (200, 201, 204, 206, 301, 302, 304, 307, 308, 400, 401, 403, 404, 408, 416, 418, 429, 500, 502, 503, 504)
_HEADERS = (
    ["Content-Length", "0"],
    ["Content-Length", "1"],
    ["Content-Length", "99999999"],
    ["Content-Length", "-1"],
    ["Content-Length", "x"],
    ["Content-Range", "bytes 0-0/1"],
    ["Content-Encoding", "gzip"],
    ["Transfer-Encoding", "chunked"],
    ["ETag", '"x"'],
    ["X-Repo-Commit", "../.."],
    ["X-Error-Code", "GatedRepo"],
    ["X-Error-Code", "RevisionNotFound"],
    ["X-Error-Message", "two\tlines"],
    ["Retry-After", "1000000"],
    ["Location", "/"],
    ["Location", ""],
    ["Location", "http://127.0.0.1:1/"],
    ["Location", "file:///etc/passwd"],
    ["Location", "//127.0.0.1:1"],
    ["Location", "/owner/clip/resolve/main/config.json"],
    ["Location", "/api/models/owner/clip"],
)
_VALUES = (
    "model.safetensors",
    "../../evil",
    "/etc/evil",
    "main",
    "c0ffee",
    130,
    5,
    -5,
    {"sha256": "x", "size": 5},
    "0" * 64,
)
_LIES = st.fixed_dictionaries(
    {
        "about": st.sampled_from(REQUESTS),
        "state": rarely(st.sampled_from(_STATES), None),
        "headers": st.lists(st.sampled_from(_HEADERS), max_size=1),
        "edits": json_edits(*_VALUES, max_size=2),
        "bytes": rarely(byte_edits(2), []),
        "times": st.sampled_from([1, 2, 1000]),
    }
)
CASES = st.fixed_dictionaries(
    {
        "lies": st.lists(_LIES, min_size=1, max_size=2),
        "sharded": st.booleans(),
        "cut": rarely(st.integers(0, 20000), None),
        "here": rarely(st.sampled_from([0, 5, 10**5]), None),
    }
)


@functools.cache
def _hub() -> FakeHub:
    """The hub of this process; it ends with it."""
    return FakeHub({}).__enter__()


@functools.cache
def _published() -> dict[str, dict[str, bytes]]:
    """A tower's CLIP, whole (`clip`) and in two shards (`sharded`), and its CNN."""
    tower = worlds.llava_world() / "tower"
    clip, cnn = ({path.name: path.read_bytes() for path in (tower / part).iterdir()} for part in ("clip", "cnn"))
    shards = {f"model-0000{number}.safetensors": clip["model.safetensors"] for number in (1, 2)}
    index = {"metadata": {"total_size": 5}, "weight_map": dict(zip("ab", shards, strict=True))}
    parts = {name: content for name, content in clip.items() if name != "model.safetensors"}
    return {
        "clip": clip,
        "sharded": {**parts, **shards, "model.safetensors.index.json": json.dumps(index).encode()},
        "cnn": cnn,
    }


def _write(case: dict[str, Any], folder: Path) -> None:
    keys = ("architecture", "model_args", "image_size", "out_index")
    sha256 = hashlib.sha256(_published()["cnn"]["model.safetensors"]).hexdigest()
    cnn = {"name": "cnn", "family": "timm", "pretrained": "owner/cnn", "sha256": sha256}
    experts = [{**cnn, **{key: EXPERTS["cnn"][key] for key in keys}}]
    (folder / "tower.yaml").write_text(yaml.safe_dump({"clip": {"pretrained": "owner/clip"}, "experts": experts}))


def _act(case: dict[str, Any], inputs: Path, output: Path) -> dict[str, Any]:
    hub = _hub()
    described: dict[str, Any] = {}
    if case["here"] is not None:  # a part of an earlier call's
        (output / "owner" / "clip").mkdir(parents=True)
        (output / "owner" / "clip" / f"model.safetensors{PART}").write_bytes(b"x" * case["here"])
    with _asked(hub):
        hub.repositories = {
            "owner/clip": _published()["sharded" if case["sharded"] else "clip"],
            "owner/cnn": _published()["cnn"],
        }
        hub.cut = {} if case["cut"] is None else {"model.safetensors": case["cut"]}
        hub.alter = _liar(case["lies"], described)
        report = json.loads(tove("fetch", inputs / "tower.yaml", "--to", output, "--json"))
    return {"report": report, "described": described}


def _liar(lies: list[dict[str, Any]], described: dict[str, Any]):
    """The hub's `alter`; what is said of repositories is kept in `described`."""
    left = [lie["times"] for lie in lies]

    def alter(method: str, path: str, answer: Answer) -> Answer:
        status, headers, content = answer
        for index, lie in enumerate(lies):
            if path.endswith(lie["about"]) or path.endswith(f"{lie['about']}/revision/main"):
                left[index] -= 1
                if left[index] >= 0:
                    if path.startswith("/api/"):
                        content = json.dumps(edited(json.loads(content), lie["edits"])).encode()
                    elif path.endswith("index.json") and content.startswith(b"{"):
                        content = json.dumps(edited(json.loads(content), lie["edits"])).encode()
                    content = edited_bytes(content, lie["bytes"])
                    status = status if lie["state"] is None else lie["state"]
                    headers = {**headers, **dict(lie["headers"])}
        if path.startswith("/api/models/") and method == "GET":
            described[path.split("/revision/")[0].removeprefix("/api/models/")] = content
        return status, headers, content

    return alter


@contextlib.contextmanager
def _asked(hub: FakeHub):
    """The hub's client asks this hub, and nothing waits between two tries."""
    import time

    clock = types.SimpleNamespace(sleep=lambda seconds: None, monotonic=time.monotonic)
    places = {"ENDPOINT": hub.url, "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}"}
    with (
        mock.patch.multiple(constants, HF_HUB_OFFLINE=False, HF_HUB_DOWNLOAD_TIMEOUT=0.2, **places),
        mock.patch("huggingface_hub.hf_api.api.endpoint", hub.url),
        mock.patch("tove_lvlm.weights.download.time", clock),
    ):
        yield


def _accepted(case: dict[str, Any], inputs: Path, output: Path, result: dict[str, Any]) -> None:
    files = {f"{row['repo']}/{file['name']}": file for row in result["report"]["repositories"] for file in row["files"]}
    here = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    expected = {*files, *(f"{row['repo']}/{RECORD}" for row in result["report"]["repositories"])}
    assert here - {f"owner/clip/model.safetensors{PART}"} == expected, "other files than the report names"
    for name, file in files.items():
        path = output / name
        assert path.stat().st_size == file["bytes"]
        assert file["sha256"] in (None, hashlib.sha256(path.read_bytes()).hexdigest())
        _check_described(path, name, result["described"])
    if not any(lie["edits"] or lie["bytes"] for lie in case["lies"]):
        for name in files:
            repo, file_name = name.rsplit("/", 1)
            published = "cnn" if repo == "owner/cnn" else "sharded" if case["sharded"] else "clip"
            assert (output / name).read_bytes() == _published()[published][file_name]


def _check_described(path: Path, name: str, described: dict[str, bytes]) -> None:
    """The file is what the hub's own list says, read here anew."""
    repo, file_name = name.rsplit("/", 1)
    siblings = json.loads(described[repo])["siblings"]
    entry = [each for each in siblings if each.get("rfilename") == file_name][-1]
    content, lfs = path.read_bytes(), entry.get("lfs")
    if isinstance(lfs, dict):
        assert lfs.get("sha256") in (None, hashlib.sha256(content).hexdigest()), f"{name} has another checksum"
    elif entry.get("blobId") is not None:
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        assert entry["blobId"] == blob, f"{name} has another checksum"


def _refused(case: dict[str, Any], inputs: Path, output: Path) -> None:
    """What a refusal leaves under a file's own name has arrived whole: as published, or as a lie described it."""
    told_otherwise = any(lie["edits"] or lie["bytes"] for lie in case["lies"])
    for path in output.rglob("*") if output.is_dir() else ():
        if path.is_file() and path.name != RECORD and not path.name.endswith(PART):
            contents = [files.get(path.name) for files in _published().values()]
            assert told_otherwise or path.read_bytes() in contents, f"{path.name} was left in part"
            assert path.parent.parent.name == "owner", "a file was written beside its repository"


TARGET = Target(
    name="server",
    cases=CASES,
    write=_write,
    act=_act,
    accepted=_accepted,
    refused=_refused,
    shared=lambda: [worlds.llava_world()],
    may_leave=True,
    deadline=30.0,
)
