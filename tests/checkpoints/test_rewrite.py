"""A checkpoint with other experts attached, in each form: what is in it, what it computes, what it leaves alone."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers import tiny_towers
from helpers.tiny_towers import hashes
from tove_lvlm.checkpoints import detect, open_checkpoint, rewrite, save_with_experts
from tove_lvlm.config import UserError
from tove_lvlm.config.model import MODEL_FILE
from tove_lvlm.storage import load_tensors, new_folder

KINDS = ["tower", "stage1", "adapter", "merged"]
GONE = ["normals", "cnn"]


@pytest.fixture(scope="module", params=KINDS)
def detached(request, checkpoints, tmp_path_factory):
    """(kind, original as loaded and detached in process, folder written, hashes of the original before)."""
    kind = request.param
    before = hashes(checkpoints[kind])
    loaded = open_checkpoint(checkpoints[kind])
    loaded.tower.detach(*GONE)
    output = tmp_path_factory.mktemp(kind) / "out"
    assert save_with_experts(loaded, output) == [kind]
    return kind, loaded, output, before


def test_the_saved_model_is_the_one_detached_in_process(detached):
    kind, loaded, output, _ = detached
    saved = open_checkpoint(output)
    assert saved.kind == kind
    assert saved.image_aspect_ratio == loaded.image_aspect_ratio
    pixels = tiny_towers.pixels()
    with torch.no_grad():
        ours, theirs = saved.tower(pixels), loaded.tower(pixels)
        assert torch.equal(ours.last_hidden_state, theirs.last_hidden_state)
        assert torch.equal(ours.gate_probs, theirs.gate_probs)
        if kind != "tower":
            ids = torch.tensor([[1, *[loaded.model.config.image_token_id] * tiny_towers.SIDE**2, 300, 301]])
            logits = [each.model(input_ids=ids, pixel_values=pixels[:1]).logits for each in (saved, loaded)]
            assert torch.equal(*logits)


def test_detached_experts_are_neither_modules_nor_memory(detached, checkpoints):
    kind, _, output, _ = detached
    saved, original = open_checkpoint(output), open_checkpoint(checkpoints[kind])
    assert set(saved.tower.experts) == {"depth", "shapes"}
    assert saved.tower.expert_names == tiny_towers.EXPERT_NAMES
    assert not [name for name, _ in saved.model.named_modules() if name.endswith(tuple(f"experts.{g}" for g in GONE))]

    def resident(model) -> int:
        return sum(t.nbytes for t in [*model.parameters(), *model.buffers()])

    away = sum(resident(original.tower.experts[name]) for name in GONE)
    assert away > 0
    assert resident(original.model) - resident(saved.model) == away


def test_files_shrink_by_the_experts_bytes_and_keep_the_others(detached, checkpoints):
    kind, _, output, _ = detached
    if kind in ("tower", "merged"):
        before, after = load_tensors(checkpoints[kind]), load_tensors(output)
        lost = {name: t for name, t in before.items() if any(f"experts.{gone}." in name for gone in GONE)}
        assert after.keys() == before.keys() - lost.keys()
        assert all(torch.equal(after[name], before[name]) and after[name].dtype == before[name].dtype for name in after)
        sizes = [(folder / "model.safetensors").stat().st_size for folder in (checkpoints[kind], output)]
        num_bytes = sum(tensor.nbytes for tensor in lost.values())
        # Apart from them only their entries in the header, some 100 bytes each, are gone.
        assert num_bytes < sizes[0] - sizes[1] < num_bytes + 130 * len(lost)
    changed = {
        "tower": {"config.json", "model.safetensors", "README.md"},
        "merged": {"config.json", "model.safetensors"},
    }
    changed |= {"adapter": {MODEL_FILE}, "stage1": {MODEL_FILE, "config.json"}}
    old, new = hashes(checkpoints[kind]), hashes(output)
    assert old.keys() == new.keys()
    assert {name for name in old if old[name] != new[name]} == changed[kind]
    assert detect(output).experts().detached == GONE


def test_the_input_is_not_touched(detached, checkpoints):
    kind, _, _, before = detached
    assert hashes(checkpoints[kind]) == before


@pytest.fixture
def output_dir(checkpoints, tmp_path) -> Path:
    """What stage 2 leaves: the merged model on top, adapter/ and pretrain/, and the run's own files."""
    folder = tmp_path / "run"
    shutil.copytree(checkpoints["merged"], folder)
    shutil.copytree(checkpoints["adapter"], folder / "adapter")
    shutil.copytree(checkpoints["stage1"], folder / "pretrain")
    (folder / "checkpoint-350").mkdir()
    (folder / "checkpoint-350" / "trainable.safetensors").write_bytes(b"x" * 1000)
    for name in ("metrics.jsonl", "trainer_state.json", "run.yaml", "train.log"):
        (folder / name).write_text("{}")
    return folder


def test_of_an_output_dir_the_model_is_written_and_the_run_is_not(output_dir, tmp_path, monkeypatch):
    loaded = open_checkpoint(output_dir)
    loaded.tower.detach("depth")
    monkeypatch.setattr("tove_lvlm.checkpoints.experts.read_tower_yaml", None)  # its YAML may be gone by now
    assert save_with_experts(loaded, tmp_path / "out") == ["merged", "adapter"]
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        {path.name for path in detect(output_dir).files() if path.parent == output_dir} | {"adapter"}
    )
    assert not {"pretrain", "checkpoint-350", "metrics.jsonl", "run.yaml"} & set(hashes(tmp_path / "out"))
    pixels = tiny_towers.pixels()
    towers = [open_checkpoint(tmp_path / "out" / part).tower for part in ("", "adapter")]
    expected = loaded.tower(pixels).last_hidden_state
    for tower in towers:
        assert tower.attached_names == ["normals", "shapes", "cnn"]
        assert torch.equal(tower(pixels).last_hidden_state, expected)


def test_shards_stay_shards(checkpoints, tmp_path):
    loaded = open_checkpoint(checkpoints["merged"])
    sharded = tmp_path / "sharded"
    shutil.copytree(checkpoints["merged"], sharded)
    (sharded / "model.safetensors").unlink()
    loaded.model.save_pretrained(sharded, max_shard_size="60KB")
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    loaded = open_checkpoint(sharded)
    loaded.tower.detach(*GONE)
    save_with_experts(loaded, tmp_path / "out")
    after = load_tensors(tmp_path / "out")
    assert len({path.name for path in (tmp_path / "out").glob("model-*.safetensors")}) > 2
    short = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert short["weight_map"].keys() == after.keys() < index["weight_map"].keys()
    assert all(name in load_file(tmp_path / "out" / file) for name, file in short["weight_map"].items())
    assert short["metadata"]["total_size"] == sum(tensor.nbytes for tensor in after.values())
    if "total_parameters" in index["metadata"]:
        lost = index["weight_map"].keys() - after.keys()
        numel = sum(load_file(sharded / index["weight_map"][name])[name].numel() for name in lost)
        assert index["metadata"]["total_parameters"] - short["metadata"]["total_parameters"] == numel
    pixels = tiny_towers.pixels()
    saved = open_checkpoint(tmp_path / "out").tower
    assert torch.equal(saved(pixels).last_hidden_state, loaded.tower(pixels).last_hidden_state)


def test_a_light_tower_stays_light(checkpoints, tmp_path):
    tower = open_checkpoint(checkpoints["tower"]).tower
    tower.save_pretrained(tmp_path / "light", light=True)
    loaded = open_checkpoint(tmp_path / "light")
    loaded.tower.detach("depth")
    save_with_experts(loaded, tmp_path / "out")
    assert hashes(tmp_path / "out")["model.safetensors"] == hashes(tmp_path / "light")["model.safetensors"]
    saved = open_checkpoint(tmp_path / "out").tower
    assert set(saved.experts) == {"normals", "shapes", "cnn"}
    assert torch.equal(
        saved(tiny_towers.pixels()).last_hidden_state, loaded.tower(tiny_towers.pixels()).last_hidden_state
    )


@pytest.mark.parametrize("kind", KINDS)
def test_all_experts_away_is_clip_bit_for_bit(checkpoints, tmp_path, kind):
    loaded = open_checkpoint(checkpoints[kind])
    loaded.tower.detach(*loaded.tower.expert_names)
    save_with_experts(loaded, tmp_path / "out")
    saved = open_checkpoint(tmp_path / "out").tower
    assert len(saved.experts) == 0
    pixels = tiny_towers.pixels()
    assert torch.equal(saved(pixels).last_hidden_state, loaded.tower.clip_tokens(pixels))


def test_a_failure_half_way_leaves_nothing(checkpoints, tmp_path, monkeypatch):
    loaded = open_checkpoint(checkpoints["merged"])
    loaded.tower.detach("depth")
    written = []

    def fail(file, tensors, metadata):
        file.write_bytes(b"half")
        written.append(file)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rewrite, "write_file", fail)
    with pytest.raises(UserError, match="No space left"):
        save_with_experts(loaded, tmp_path / "out")
    assert written
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_are_in_the_way_are_refused(checkpoints, tmp_path):
    source = shutil.copytree(checkpoints["tower"], tmp_path / "tower")
    loaded = open_checkpoint(source)
    loaded.tower.detach("depth")
    before = hashes(source)
    for output in (source, source / "inside" / "deep", tmp_path / "tower" / ".." / "tower", tmp_path):
        with pytest.raises(UserError, match="(is|lies in|contains) the input"):
            save_with_experts(loaded, output)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="exists already"):
        save_with_experts(loaded, tmp_path / "file")
    with pytest.raises(UserError, match="cannot be written"):
        save_with_experts(loaded, tmp_path / "file" / "below")
    assert hashes(source) == before
    (tmp_path / "empty").mkdir()
    assert save_with_experts(loaded, tmp_path / "empty") == ["tower"]


def test_what_the_folder_does_not_hold_cannot_be_written(checkpoints, clip_only, tmp_path):
    with pytest.raises(UserError, match="plain CLIP as its vision tower"):
        save_with_experts(open_checkpoint(clip_only), tmp_path / "clip")
    loaded = open_checkpoint(checkpoints["merged"])
    loaded.tower.detach("depth")
    save_with_experts(loaded, tmp_path / "without")
    with pytest.raises(UserError, match="does not hold the weights of `depth`; bring it back with `tove attach`"):
        with new_folder(tmp_path / "out") as writing:
            detect(tmp_path / "without").with_experts(writing, ["cnn"])
    assert not (tmp_path / "out").exists()
