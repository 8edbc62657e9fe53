"""Whole runs of merging on tiny checkpoints: what is learnt, written, resumed and refused."""

import json
import logging
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from helpers import llava_runs, merge_runs, tiny_towers
from helpers.paths import ROOT
from helpers.training import alone, environment, losses, metrics, same, weights
from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.recipes.llava import FINETUNE
from tove_lvlm.train import checkpoint


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    with alone(monkeypatch):
        yield


@pytest.fixture(scope="module")
def images(world):
    return world / "images"


def pixels_of(tower_or_loaded, images):
    from tove_lvlm.data.images import read_image, to_pixels

    processor = tower_or_loaded.image_processor
    return torch.stack([to_pixels(read_image(path), processor) for path in sorted(images.iterdir())[:8]])


@pytest.fixture(scope="module")
def merged(checkpoints, images, tmp_path_factory):
    """Kind of checkpoint -> output folder of a short run on it."""
    done = {}
    held = logging.root.handlers[:], logging.root.level

    def run(kind):
        if kind not in done:
            folder = tmp_path_factory.mktemp(f"merge_{kind}")
            path = merge_runs.write_yaml(
                folder,
                checkpoints[kind],
                images,
                max_steps=150 if kind == "tower" else 4,
                save_steps=200,
                logging_steps=10,
            )
            assert merge_runs.run(path) == 0
            done[kind] = folder / "out"
        return done[kind]

    yield run
    logging.root.handlers[:], logging.root.level = held


# ---- what is learnt and written ----


def test_student_comes_far_nearer_to_the_tower_than_clip_was(merged, checkpoints, images):
    from transformers import AutoImageProcessor, CLIPVisionModel

    out = merged("tower")
    lines = metrics(out)
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert lines[-1]["gap"] < 0.3
    loaded = open_checkpoint(checkpoints["tower"])
    pixels = pixels_of(loaded, images)
    student = CLIPVisionModel.from_pretrained(out / "clip").eval()
    processor = AutoImageProcessor.from_pretrained(out / "clip", backend="pil")
    assert type(student).__module__.startswith("transformers.")
    assert type(processor).__module__.startswith("transformers.")
    with Image.open(sorted(images.iterdir())[0]) as image:
        assert torch.equal(processor(image, return_tensors="pt")["pixel_values"][0], pixels[0])
    with torch.no_grad():
        states = student(pixels, output_hidden_states=True).hidden_states
        t_clip, t_fuse = loaded.tower(pixels).hidden_states
    left = (states[-2][:, 1:] - t_fuse).square().mean() / (t_clip - t_fuse).square().mean()
    assert left < 0.3  # 1 for CLIP itself
    # The layer above is the tower's CLIP's own.
    before, after = weights(checkpoints["tower"]), weights(out / "clip")
    above = [name for name in after if ".layers.2." in name or "post_layernorm" in name]
    assert above
    theirs = {name.removeprefix("vision_model."): tensor for name, tensor in after.items()}
    ours = {
        name.removeprefix("clip.").removeprefix("vision_model."): t for name, t in before.items() if "clip." in name
    }
    assert all(
        torch.equal(theirs[n.removeprefix("vision_model.")], ours[n.removeprefix("vision_model.")]) for n in above
    )
    report = json.loads((out / "clip" / "merge.json").read_text())
    assert (report["steps"], report["images"], report["skipped"]) == (150, 24, [])
    assert report["source"]["experts"] == tiny_towers.EXPERT_NAMES
    assert report["gap"] == lines[-1]["gap"]
    assert "gap" in (out / "clip" / "README.md").read_text()
    assert not (out / "lvlm").exists()


LOADS_ALONE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tove_lvlm":
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Absent())
import torch
from PIL import Image
from transformers import AutoImageProcessor, CLIPVisionModel
folder, image, target = sys.argv[1:]
model, report = CLIPVisionModel.from_pretrained(folder, output_loading_info=True)
assert not report["missing_keys"] and not report["unexpected_keys"], report
pixels = AutoImageProcessor.from_pretrained(folder, backend="pil")(Image.open(image), return_tensors="pt")
with torch.no_grad():
    torch.save(model(**pixels, output_hidden_states=True).hidden_states[-2], target)
assert "tove_lvlm" not in sys.modules
"""


def test_loads_where_the_package_cannot_be_imported(merged, images, tmp_path):
    from transformers import CLIPVisionModel

    out, image = merged("tower") / "clip", sorted(images.iterdir())[0]
    command = [sys.executable, "-c", LOADS_ALONE, str(out), str(image), str(tmp_path / "features.pt")]
    subprocess.run(command, check=True, env=environment(), cwd=tmp_path)
    pixels = pixels_of(open_checkpoint(merged("merged") / "lvlm"), images)[:1]
    with torch.no_grad():
        mine = CLIPVisionModel.from_pretrained(out)(pixels, output_hidden_states=True).hidden_states[-2]
    # Another process may sum in another order.
    torch.testing.assert_close(torch.load(tmp_path / "features.pt", weights_only=True), mine, rtol=1e-4, atol=1e-4)


def test_in_llavas_own_tower(merged, images):
    from types import SimpleNamespace

    from helpers import llava_reference

    llava_reference.load()
    from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
    from transformers import CLIPVisionModel

    out = merged("tower") / "clip"
    args = SimpleNamespace(mm_vision_select_layer=-2, mm_vision_select_feature="patch")
    theirs = CLIPVisionTower(str(out), args, delay_load=False)
    pixels = pixels_of(open_checkpoint(merged("merged") / "lvlm"), images)
    with torch.no_grad():
        mine = CLIPVisionModel.from_pretrained(out)(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        assert torch.equal(theirs(pixels), mine)
    assert (theirs.hidden_size, theirs.num_patches) == (tiny_towers.WIDTH, tiny_towers.SIDE**2)


# ---- the LVLM ----


@pytest.mark.parametrize("kind", ["merged", "adapter", "stage1"])
def test_lvlm_has_clip_in_the_towers_place_and_all_else_as_it_was(merged, checkpoints, images, kind):
    from transformers import LlavaForConditionalGeneration

    out = merged(kind)
    old = open_checkpoint(checkpoints[kind])
    new, report = LlavaForConditionalGeneration.from_pretrained(out / "lvlm", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert type(new.model.vision_tower).__name__ == "CLIPVisionModel"
    assert new.config.vision_config.model_type == "clip_vision_model"
    assert (new.config.vision_feature_layer, new.config.vision_feature_select_strategy) == (-2, "default")
    for part in ("multi_modal_projector", "language_model"):
        assert same(getattr(new.model, part).state_dict(), getattr(old.model.model, part).state_dict())
    assert torch.equal(new.lm_head.weight, old.model.lm_head.weight)
    assert same(new.model.vision_tower.state_dict(), dict(_clip(out / "clip").state_dict()))
    # With the tower's own tokens in CLIP's place the language model says what it said.
    loaded = open_checkpoint(out / "lvlm")
    assert (loaded.kind, loaded.tower, loaded.image_aspect_ratio) == ("merged", None, old.image_aspect_ratio)
    pixels = pixels_of(loaded, images)[:2]
    image_id, num = new.config.image_token_id, tiny_towers.SIDE**2
    assert new.config.image_seq_length == num
    ids = torch.tensor([[1] + [image_id] * num + [5, 6, 7]] * 2)
    with torch.no_grad():
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
        before, after = old.model(**batch).logits, new.eval()(**batch).logits
        features = _clip(out / "clip")(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        hook = old.tower.register_forward_hook(lambda m, a, o: _with_tokens(o, features))
        swapped = old.model(**batch).logits
        hook.remove()
    assert torch.equal(after, swapped)
    assert not torch.equal(before, after)


def _with_tokens(output, tokens):
    output.last_hidden_state, output.hidden_states = tokens, (tokens, tokens)
    return output


def _clip(folder):
    from transformers import CLIPVisionModel

    return CLIPVisionModel.from_pretrained(folder).eval()


def test_same_modules_and_shapes_as_clip_only(merged, clip_only):
    from transformers import LlavaForConditionalGeneration

    ours, theirs = (LlavaForConditionalGeneration.from_pretrained(f) for f in (merged("merged") / "lvlm", clip_only))
    assert {n: p.shape for n, p in ours.named_parameters()} == {n: p.shape for n, p in theirs.named_parameters()}
    assert [(n, type(m)) for n, m in ours.named_modules()] == [(n, type(m)) for n, m in theirs.named_modules()]


@pytest.mark.parametrize("kind", ["adapter", "stage1"])
def test_tuning_goes_on_where_the_merged_lvlm_stands(merged, world, tmp_path, kind):
    """The first loss of scripts/finetune_vicuna.py on the student is that of the untuned merged LVLM."""
    import yaml
    from transformers import LlavaForConditionalGeneration

    from tove_lvlm.train.launch import main, prepare_environment
    from tove_lvlm.train.run import build_trainer
    from tove_lvlm.train.stage import load_run

    out = merged(kind)
    known = json.loads((out / "lvlm" / "tove_model.json").read_text())["model"]
    assert known["vision_tower"] == str(out / "clip")
    assert (kind == "stage1") != (known["llm"] == str(out / "llm"))
    start = {key: known[key] for key in ("llm", "vision_tower", "mm_vision_select_layer")}
    block = llava_runs.run_block(world, "finetune")
    block["model"] = start | {"pretrain_mm_mlp_adapter": str(out / "pretrain")}
    block["data"] = {"train": [str(world / "finetune.json")], "image_folder": str(world / "images")}
    block["lora"]["lora_dropout"] = 0.0
    block["train"] |= {"output_dir": str(tmp_path / "out"), "max_steps": 1, "gradient_accumulation_steps": 1}
    (tmp_path / "finetune.yaml").write_text(yaml.safe_dump(block))
    run = load_run(FINETUNE, tmp_path / "finetune.yaml")
    prepare_environment(run, None)
    trainer = build_trainer(FINETUNE, run)[0]
    trainer._rank_batches.set_epoch(0)
    batch = next(iter(trainer.get_train_dataloader()))
    batch.pop("sample_ids")
    with torch.no_grad():
        expected = LlavaForConditionalGeneration.from_pretrained(out / "lvlm").eval()(**batch).loss.item()
    assert main(FINETUNE, ["--cfg-path", str(tmp_path / "finetune.yaml")]) == 0
    assert losses(tmp_path / "out")[1] == pytest.approx(expected, rel=1e-5)


def test_clip_folder_is_a_vision_tower_for_our_scripts(merged):
    from tove_lvlm.config.model import ModelConfig
    from tove_lvlm.lvlm.build import load_vision

    out = merged("tower") / "clip"
    by_folder = load_vision(ModelConfig(llm="x", vision_tower=str(out)))
    by_name = load_vision(ModelConfig(llm="x", vision_tower="clip", clip=str(out)))
    for vision in (by_folder, by_name):
        assert same(vision.tower.state_dict(), _clip(out).state_dict())
        assert (vision.feature_layer, vision.select_strategy, vision.num_tokens) == (-2, "default", tiny_towers.SIDE**2)


# ---- runs ----


def test_lora_run_writes_a_plain_clip(checkpoints, images, tmp_path):
    path = merge_runs.write_yaml(tmp_path, checkpoints["tower"], images, max_steps=20)
    with pytest.warns(FutureWarning) as caught:
        assert merge_runs.run(path, "lora.lora_enable=true", "lora.lora_r=4", "merge.token_weight=cls_attention") == 0
    messages = {str(warning.message).partition(" is deprecated")[0] for warning in caught}
    assert {"`lora`", "`merge.token_weight`"} <= messages
    lines = metrics(tmp_path / "out")
    assert lines[-1]["gap"] < lines[0]["gap"]
    held = load_file(checkpoint.checkpoints(tmp_path / "out")[-1] / checkpoint.TRAINABLE)
    assert all(".lora_" in name for name in held)
    after = _clip(tmp_path / "out" / "clip").state_dict()
    before = open_checkpoint(checkpoints["tower"]).tower.clip.state_dict()
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert after.keys() == before.keys()
    assert len(moved) == 2 * 6
    assert all(name.endswith(".weight") and ".layers.2." not in name for name in moved)


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "options",
    [
        ("merge.cache_teacher=CACHE", "data.horizontal_flip=false"),
        ("lora.lora_enable=true", "lora.lora_dropout=0.2", "train.bf16=true"),
    ],
)
def test_resumed_run_is_bit_identical(checkpoints, images, tmp_path, monkeypatch, options):
    """Stopped after step 3 of 6, between two log lines; flips and LoRA's dropout draw."""
    options = ["data.horizontal_flip=true", "train.logging_steps=2", *options]
    path = merge_runs.write_yaml(tmp_path, checkpoints["tower"], images)
    options = [option.replace("CACHE", f"{tmp_path}/cache") for option in options]
    assert merge_runs.run(path, *options, f"train.output_dir={tmp_path}/whole") == 0
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    inner = checkpoint.save

    def save_and_die(state, record, *args):
        written = inner(state, record, *args)
        if record.trainer_state.global_step == 3:
            raise KeyboardInterrupt
        return written

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        merge_runs.run(path, *options)
    assert not (tmp_path / "out" / "clip").exists()
    monkeypatch.setattr(checkpoint, "save", inner)
    assert merge_runs.run(path, *options) == 0
    assert metrics(tmp_path / "out") == metrics(tmp_path / "whole")
    assert same(weights(tmp_path / "out" / "clip"), weights(tmp_path / "whole" / "clip"))


def test_nan_stops_with_step_and_images(checkpoints, images, tmp_path, monkeypatch, capfd):
    from tove_lvlm.recipes.merge import distiller

    inner, calls = distiller.weighted_mean, []

    def poisoned(*args):
        calls.append(1)
        return inner(*args) * (float("nan") if len(calls) == 5 else 1)

    monkeypatch.setattr(distiller, "weighted_mean", poisoned)
    assert merge_runs.run(merge_runs.write_yaml(tmp_path, checkpoints["tower"], images)) == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert "nan at step 5" in last
    assert ".png" in last
    assert not (tmp_path / "out" / "clip").exists()


@pytest.mark.parametrize(
    ("zero", "kind"), [pytest.param("zero2", "tower", marks=pytest.mark.full), ("zero3", "merged")]
)
def test_two_ranks_learn_what_one_rank_does(checkpoints, images, tmp_path, zero, kind):
    """Two ranks of 4 see the batches of one rank of 8; under ZeRO-3 rank 0 then writes a whole LVLM alone."""
    one = merge_runs.write_yaml(tmp_path, checkpoints[kind], images)
    assert merge_runs.run(one) == 0
    options = [
        f"train.deepspeed={ROOT}/projects/deepspeed/{zero}.json",
        "train.per_device_train_batch_size=4",
        f"train.output_dir={tmp_path}/two",
    ]
    code, output = merge_runs.launch(one, options, ranks=2)
    assert code == 0, output[-3000:]
    a, b = (metrics(tmp_path / name) for name in ("out", "two"))
    for left, right in zip(a, b, strict=True):
        assert right["loss"] == pytest.approx(left["loss"], rel=2e-3)
    ours, theirs = weights(tmp_path / "out" / "clip"), weights(tmp_path / "two" / "clip")
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-2, atol=5e-3)


# ---- bad input ----


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(capfd, path, *options) -> str:
    assert merge_runs.run(path, *options) == 2
    return capfd.readouterr().err.splitlines()[-1]


def test_what_cannot_be_merged_is_one_line(checkpoints, clip_only, images, tmp_path, capfd, tiny_tower):
    before = snapshot(checkpoints["tower"])
    path = merge_runs.write_yaml(tmp_path, checkpoints["tower"], images)
    tiny_tower.save_pretrained(tmp_path / "fresh")
    assert "never trained" in refused(capfd, path, f"model.checkpoint={tmp_path}/fresh")
    bare = tiny_towers.wake(tiny_tower)
    bare.detach(*tiny_towers.EXPERT_NAMES)
    bare.save_pretrained(tmp_path / "bare")
    assert "no expert attached" in refused(capfd, path, f"model.checkpoint={tmp_path}/bare")
    assert "plain CLIP" in refused(capfd, path, f"model.checkpoint={clip_only}")
    assert "`model.checkpoint`" in refused(capfd, path, f"model.checkpoint={tmp_path}/nowhere")
    both = ("data.horizontal_flip=true", f"merge.cache_teacher={tmp_path}/cache")
    assert "exclude each other" in refused(capfd, path, *both)
    assert "`merge.loss`" in refused(capfd, path, "merge.loss=l7")
    assert "unknown key `train.mm_projector_lr`" in refused(capfd, path, "train.mm_projector_lr=1.0")
    (tmp_path / "empty").mkdir()
    assert "holds no image" in refused(capfd, path, f"data.images=[{tmp_path}/empty]")
    for index in range(8):
        (tmp_path / "empty" / f"{index}.png").write_bytes(b"no picture")
    assert "6 bad samples, more than the 5 allowed" in refused(capfd, path, f"data.images=[{tmp_path}/empty]")
    assert not (tmp_path / "out" / "clip").exists()
    assert snapshot(checkpoints["tower"]) == before


def test_a_few_broken_images_are_listed(checkpoints, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(12):
        noise = np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{index:02}.png")
    (folder / "05.png").write_bytes(b"broken")
    assert merge_runs.run(merge_runs.write_yaml(tmp_path, checkpoints["tower"], folder, max_steps=3)) == 0
    report = json.loads((tmp_path / "out" / "clip" / "merge.json").read_text())
    assert report["skipped"] == [str(folder / "05.png")]
    assert report["images"] == 12


# ---- the command ----


def test_command_takes_the_images_that_the_checkpoint_was_trained_on(checkpoints, images, tmp_path, capsys):
    from typer.testing import CliRunner

    from tove_lvlm.cli import app

    start = ["--max-steps", "2", "--json", "--options", "train.per_device_train_batch_size=4"]
    link = tmp_path / "trained"
    link.mkdir()
    for entry in checkpoints["merged"].iterdir():
        (link / entry.name).symlink_to(entry)
    with pytest.raises(Exception, match="--images"):
        CliRunner().invoke(app, ["merge", str(link), "--output", str(tmp_path / "m"), *start], catch_exceptions=False)
    (link / "run.yaml").write_text(f"data: {{image_folder: {images}}}")
    result = CliRunner().invoke(app, ["merge", str(link), "--output", str(tmp_path / "m"), *start])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["steps"], report["images"]) == (2, 24)
    assert (tmp_path / "m" / "lvlm" / "model.safetensors").is_file()
