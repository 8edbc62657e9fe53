"""What a run of merging has learnt and writes: a plain CLIP, and the LVLM with it in the tower's place."""

import dataclasses
import json
import logging
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image

from helpers import llava_runs, merge_runs, tiny_towers
from helpers.training import environment, losses, metrics, same, weights
from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.config import UserError
from tove_lvlm.recipes.llava import FINETUNE

pytestmark = pytest.mark.usefixtures("one_rank")


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
    assert same(new.model.vision_tower.state_dict(), dict(merge_runs.load_clip(out / "clip").state_dict()))
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
        features = merge_runs.load_clip(out / "clip")(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        hook = old.tower.register_forward_hook(lambda m, a, o: _with_tokens(o, features))
        swapped = old.model(**batch).logits
        hook.remove()
    assert torch.equal(after, swapped)
    assert not torch.equal(before, after)


@pytest.mark.parametrize("aspect_ratio", ["square", "pad"])
def test_the_lvlms_processor_pads_where_training_did(merged, checkpoints, aspect_ratio):
    from tove_lvlm.data.images import to_pixels
    from tove_lvlm.recipes.merge.writing import replace_tower

    loaded = dataclasses.replace(open_checkpoint(checkpoints["merged"]), image_aspect_ratio=aspect_ratio)
    image = Image.effect_noise((40, 20), 90).convert("RGB")
    expected = to_pixels(image, loaded.image_processor, aspect_ratio)
    model, _ = replace_tower(loaded, merge_runs.load_clip(merged("merged") / "clip"), -2)
    assert torch.equal(model.processor.image_processor(image, return_tensors="pt")["pixel_values"][0], expected)


def _with_tokens(output, tokens):
    output.last_hidden_state, output.hidden_states = tokens, (tokens, tokens)
    return output


def test_same_modules_and_shapes_as_clip_only(merged, clip_only):
    from transformers import LlavaForConditionalGeneration

    ours, theirs = (LlavaForConditionalGeneration.from_pretrained(f) for f in (merged("merged") / "lvlm", clip_only))
    assert {n: p.shape for n, p in ours.named_parameters()} == {n: p.shape for n, p in theirs.named_parameters()}
    assert [(n, type(m)) for n, m in ours.named_modules()] == [(n, type(m)) for n, m in theirs.named_modules()]


@pytest.mark.parametrize("kind", ["adapter", "stage1"])
def test_tuning_goes_on_where_the_merged_lvlm_stands(merged, tiny_data, tmp_path, kind):
    """The first loss of scripts/finetune_vicuna.py on the student is that of the untuned merged LVLM."""
    import yaml
    from transformers import LlavaForConditionalGeneration

    from tove_lvlm.data.row_layout import model_inputs
    from tove_lvlm.train.launch import main, prepare_environment
    from tove_lvlm.train.run import build_trainer
    from tove_lvlm.train.stage import load_run

    out = merged(kind)
    known = json.loads((out / "lvlm" / "tove_model.json").read_text())["model"]
    assert known["vision_tower"] == "../clip"
    assert (kind == "stage1") != (known["llm"] == "../llm")
    pretrain = shutil.copytree(out / "pretrain", tmp_path / "moved" / "pretrain")
    with pytest.raises(UserError, match=r"moved/pretrain` refers to `.*/moved/(clip|llm)`, which is not there"):
        open_checkpoint(pretrain)
    for folder in ("clip", "llm"):  # what lies beside it moves with it
        if (out / folder).is_dir():
            (tmp_path / "moved" / folder).symlink_to(out / folder)
    assert open_checkpoint(pretrain).kind == "stage1"
    known |= {key: str((out / "lvlm" / known[key]).resolve()) for key in ("llm", "vision_tower")}
    start = {key: known[key] for key in ("llm", "vision_tower", "mm_vision_select_layer")}
    block = llava_runs.run_block(tiny_data, "finetune")
    block["model"] = start | {"pretrain_mm_mlp_adapter": str(out / "pretrain")}
    block["data"] = {"train": [str(tiny_data / "finetune.json")], "image_folder": str(tiny_data / "images")}
    block["lora"]["lora_dropout"] = 0.0
    block["train"] |= {"output_dir": str(tmp_path / "out"), "max_steps": 1, "gradient_accumulation_steps": 1}
    (tmp_path / "finetune.yaml").write_text(yaml.safe_dump(block))
    run = load_run(FINETUNE, tmp_path / "finetune.yaml", ["train.padding_free=false"])
    prepare_environment(run, None)
    trainer = build_trainer(FINETUNE, run)[0]
    trainer._rank_batches.set_epoch(0)
    batch = model_inputs(trainer._prepare_inputs(next(iter(trainer.get_train_dataloader()))))
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
        assert same(vision.tower.state_dict(), merge_runs.load_clip(out).state_dict())
        assert (vision.feature_layer, vision.select_strategy, vision.num_tokens) == (-2, "default", tiny_towers.SIDE**2)
