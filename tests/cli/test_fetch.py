"""`tove fetch`: a tower's weights into a mirror folder, and the tower built from there without network."""

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple

import pytest
import torch
import yaml
from huggingface_hub import HfApi, constants
from huggingface_hub.hf_api import RepoSibling

from helpers import tiny_towers
from helpers.fake_hub import COMMIT
from helpers.fetching import WANTED, files_of, parts, run, served, tower
from helpers.paths import ROOT
from tove_lvlm import build_tower
from tove_lvlm.config import UserError
from tove_lvlm.tower.from_yaml import read_tower_yaml
from tove_lvlm.tower.parts import read_parts
from tove_lvlm.weights import mirror
from tove_lvlm.weights.hub import MIRROR_VARIABLE, RECORD
from tove_lvlm.weights.sources import status

__all__ = ["parts", "served", "tower"]


def test_a_tower_goes_to_a_machine_without_network(served, parts, tower, tmp_path, monkeypatch):
    to = tmp_path / "mirror"
    dry = json.loads(run(tower, "--to", to, "--dry-run", "--json").stdout)
    assert files_of(dry) == dict.fromkeys(WANTED, "missing")
    assert not to.exists()
    report = json.loads(run(tower, "--to", to, "--json").stdout)
    assert files_of(report) == dict.fromkeys(WANTED, "downloaded")
    assert report["elsewhere"] == [{"part": "depth", "pretrained": str(parts / "depth"), "state": "present"}]
    record = json.loads((to / "owner" / "cnn" / RECORD).read_text())
    assert (record["revision"], record["commit"]) == ("main", COMMIT)
    assert record["files"]["resnet.pth"]["size"] == (parts / "cnn" / "resnet.pth").stat().st_size
    asked = len(served.downloads("resnet.pth"))
    assert set(files_of(json.loads(run(tower, "--to", to, "--json").stdout)).values()) == {"there"}
    assert len(served.downloads("resnet.pth")) == asked

    served.__exit__()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv(MIRROR_VARIABLE, str(to))
    built = build_tower(tower)
    assert built.sources["experts"]["cnn"] == {
        "source": "owner/cnn",
        "revision": COMMIT,
        "file": "resnet.pth",
        "sha256": record["files"]["resnet.pth"]["sha256"],
        "license": "mit",
        "code_license": None,
    }
    saved = torch.load(parts / "cnn" / "resnet.pth", weights_only=True)
    assert torch.equal(built.experts["cnn"].backbone.conv1[0].weight, saved["conv1.0.weight"])
    built.save_pretrained(tmp_path / "light", light=True)
    again = build_tower(tmp_path / "light")
    assert torch.equal(again(tiny_towers.pixels()).last_hidden_state, built(tiny_towers.pixels()).last_hidden_state)
    assert {part: found.state for part, found in _statuses(tmp_path / "light").items()} == dict.fromkeys(
        ("clip", "depth", "cnn"), "present"
    )


def test_a_networks_architecture_is_asked_of_the_hub_where_the_yaml_leaves_it_out(served, parts, tower, tmp_path):
    served.repositories["owner/vision"] = served.repositories["owner/clip"]
    entry = "experts.0={name: other, family: transformers, pretrained: owner/vision, output: features}"
    given = read_tower_yaml(tower, [entry]).experts[0]
    assert given.fields["architecture"]["hidden_size"] == tiny_towers.WIDTH
    assert given.fields["mean"] == tiny_towers.HALF
    assert served.downloads("model.safetensors") == []
    with pytest.raises(UserError, match=r"experts\[0\]: `owner/gone` is no file.*404.*; or state `architecture`"):
        read_tower_yaml(tower, [entry.replace("owner/vision", "owner/gone")])


def test_what_a_light_tower_refers_to(served, tower, tmp_path):
    run(tower, "--to", tmp_path / "mirror")
    built = build_tower(tower)  # from the hub's cache
    built.detach("cnn")
    built.save_pretrained(tmp_path / "light", light=True)
    report = json.loads(run(tmp_path / "light", "--to", tmp_path / "other", "--json").stdout)
    assert {row["repo"]: row["revision"] for row in report["repositories"]} == {"owner/clip": COMMIT}
    with pytest.raises(UserError, match="are for a tower's YAML"):
        run(tmp_path / "light", "--to", tmp_path / "other", "--options", "detached=[]")
    with pytest.raises(UserError, match="is no light tower"):
        run(tmp_path / "mirror", "--to", tmp_path / "other")


def test_the_table_names_parts_sizes_and_where_the_rest_is(served, tower, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    done = run(tower, "--to", tmp_path / "mirror", "--options", "detached=[depth]")
    assert "owner/cnn" in done.stdout
    assert "resnet.pth" in done.stdout
    assert "downloaded" in done.stdout
    assert "depth" not in done.stdout
    assert f"TOVE_MIRROR={tmp_path / 'mirror'}" in done.stdout


def test_killed_in_the_middle_it_goes_on_with_the_rest(served, tower, tmp_path):
    """As a user would: a process of its own that dies, then the same command again."""
    to = tmp_path / "mirror"
    served.cut["resnet.pth"] = 20_000
    code = (
        "import sys, os; from tove_lvlm.weights import download\n"
        "real = download._stream\n"
        "def dies(file, stream, progress):\n"
        "    try: real(file, stream, progress)\n"
        "    except Exception: stream.flush(); os._exit(9)\n"
        "download._stream = dies\n"
        "from tove_lvlm.cli import main; main()"
    )
    environment = {**os.environ, "HF_ENDPOINT": served.url, "HF_HUB_OFFLINE": "0"}
    command = ["fetch", str(tower), "--to", str(to), "--json"]
    assert subprocess.run([sys.executable, "-c", code, *command], env=environment).returncode == 9
    assert 0 < (to / "owner" / "cnn" / "resnet.pth.part").stat().st_size <= 20_000
    done = subprocess.run(
        [sys.executable, "-m", "tove_lvlm.cli", *command], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert files_of(json.loads(done.stdout))["owner/cnn/resnet.pth"] == "downloaded"
    first, second = served.downloads("resnet.pth")
    assert (first, second) == ("bytes=0-", f"bytes={20_000}-")
    assert not list(to.rglob("*.part"))


def test_what_a_killed_one_left_half_written_goes(served, tower, tmp_path):
    folder = tmp_path / "mirror" / "owner" / "cnn"
    (folder / "..tove.json.0123abcd.tove-tmp").mkdir(parents=True)
    (folder / "..tove.json.0123abcd.tove-lock").touch()
    assert run(tower, "--to", tmp_path / "mirror").exit_code == 0
    assert sorted(path.name for path in folder.iterdir()) == [RECORD, "config.json", "resnet.pth"]


def test_of_the_papers_tower_one_format_of_each_repository_is_wanted(served, tmp_path):
    """Repositories as they are published: several libraries' weights side by side, or many networks' in one."""
    names = [
        "config.json",
        "model.safetensors",
        "open_clip_model.safetensors",
        "pytorch_model.bin",
        "flax_model.msgpack",
    ]
    names += ["DexiNed_BIPED_10.pth", "scannet.pt", "ControlNetHED.pth", "README.md"]
    path = ROOT / "projects" / "towers" / "clip_l336_five_experts.yaml"
    parts = read_tower_yaml(path).parts
    for source in parts.values():
        served.repositories[source.pretrained] = {name: name.encode() * 100 for name in names}
    report = json.loads(run(path, "--to", tmp_path, "--dry-run", "--json").stdout)
    wanted = {
        row["parts"][0]: {file["name"] for file in row["files"]} - {"config.json"} for row in report["repositories"]
    }
    own = {"normals": "scannet.pt", "edges": "DexiNed_BIPED_10.pth", "eva02_clip": "open_clip_model.safetensors"}
    assert wanted == {part: {own.get(part, "model.safetensors")} for part in parts}


# ---- refusals ----


def test_a_gated_repository_does_not_keep_the_others_away(served, tower, tmp_path):
    served.gated.add("owner/clip")
    with pytest.raises(UserError, match=r"^`owner/clip`: gated: accept its terms at .*/owner/clip and give a token"):
        run(tower, "--to", tmp_path / "mirror", "--json")
    assert (tmp_path / "mirror" / "owner" / "cnn" / "resnet.pth").is_file()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("clip.pretrained=owner/gone", "^`owner/gone`: 404: no such repository"),
        ("clip.revision=v9", "^`owner/clip`: it has no revision `v9`"),
        ("experts.1.file=renset.pth", "`owner/cnn` has no file `renset.pth`; did you mean `resnet.pth`"),
        (f"experts.1.sha256={'f' * 64}", f"`resnet.pth` has the sha256 [0-9a-f]{{64}}, expected {'f' * 64}"),
    ],
)
def test_what_is_not_to_be_had_is_one_line_and_nothing_is_written(served, tower, tmp_path, option, message):
    sizes = yaml.safe_dump(tiny_towers.CLIP_ARCHITECTURE, default_flow_style=True).strip()
    with pytest.raises(UserError, match=message) as caught:
        run(tower, "--to", tmp_path / "mirror", "--options", option, f"clip.architecture={sizes}")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "mirror").exists()


def test_a_mirrored_repository_stays_at_its_commit(served, tower, tmp_path):
    run(tower, "--to", tmp_path / "mirror")
    with pytest.raises(UserError, match="holds `owner/clip` at revision `main`, and `v9` is wanted"):
        run(tower, "--to", tmp_path / "mirror", "--options", "clip.revision=v9")
    run(tower, "--to", tmp_path / "mirror", "--options", f"clip.revision={COMMIT}")


@pytest.mark.parametrize("size", [None, float("nan"), -1, "12"])
def test_a_hub_that_states_no_size(served, tower, tmp_path, monkeypatch, size):
    look_up = HfApi.model_info

    def model_info(self, repo, **options):
        info = look_up(self, repo, **options)
        for entry in info.siblings:
            entry.size, entry.lfs = size, None
        info.siblings.append(RepoSibling(None))
        return info

    monkeypatch.setattr(HfApi, "model_info", model_info)
    with pytest.raises(UserError, match="`owner/clip`: the hub does not say how large `.*` is"):
        run(tower, "--to", tmp_path / "mirror")
    assert not (tmp_path / "mirror").exists()


def test_a_hub_that_falls_silent(served, tower, tmp_path, monkeypatch):
    served.alter = lambda method, path, answer: (answer[0], answer[1] | {"Content-Length": "99999"}, answer[2])
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    with pytest.raises(UserError, match="^`owner/clip`: ReadTimeout; no network"):
        run(tower, "--to", tmp_path / "mirror")
    assert not (tmp_path / "mirror").exists()


def test_one_repository_at_two_revisions(served, tower, tmp_path):
    with pytest.raises(UserError, match="`owner/clip` is wanted at the revisions main and v1"):
        run(tower, "--to", tmp_path, "--options", "experts.1.pretrained=owner/clip", "experts.1.revision=v1")


def test_no_network_and_a_full_disk(served, tower, tmp_path, monkeypatch):
    disk = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk(2000, 1000, 1000))
    with pytest.raises(UserError, match="needs 0.00 GB more, and its disk has 0.00 GB left"):
        run(tower, "--to", tmp_path / "mirror")
    monkeypatch.undo()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set, so nothing can be downloaded"):
        run(tower, "--to", tmp_path / "mirror")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="^`owner/clip`: .*; no network to http://127.0.0.1:9?"):
        run(tower, "--to", tmp_path / "mirror")


def test_a_disk_that_fills_says_how_to_go_on(served, tower, tmp_path, monkeypatch):
    import errno

    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^`owner/clip`: .*/file.*: Not a directory|File exists"):
        run(tower, "--to", tmp_path / "file")
    monkeypatch.setattr(mirror.download, "download", _full(errno.ENOSPC))
    with pytest.raises(UserError, match="no space left on the disk.*; the same command goes on from here"):
        run(tower, "--to", tmp_path / "mirror")


def _full(number: int):
    def download(*args):
        raise OSError(number, os.strerror(number), "DISK")

    return download


def _statuses(path):
    return {part: status(source) for part, source in read_parts(path).items()}
