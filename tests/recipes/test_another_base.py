"""The whole way on a SigLIP: train both stages, detach, merge into a stock SigLIP, ask all of them, go on training."""

import json

import pytest
import torch
import yaml

from helpers import llava_runs, merge_runs, tiny_bases, tiny_qwen, training
from helpers.tiny_lvlm import make_data, make_llm
from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.config import ConfigError
from tove_lvlm.inference.chat import Chat
from tove_lvlm.lvlm.build import stock_vision
from tove_lvlm.surgery.detach import detach

pytestmark = pytest.mark.usefixtures("one_rank")
BASE = {"family": "transformers", "pretrained": "./base", "layer": -2}


@pytest.fixture(scope="module")
def way(tmp_path_factory):
    """Folder with `out-pretrain` and `out-finetune/merged` of a tower on SigLIP, and what they were made from."""
    world = tmp_path_factory.mktemp("siglip")
    make_llm(world / "llm")
    make_data(world / "data")
    tiny_bases.make_base(world / "tower" / "base", "siglip_vision_model")
    tiny_bases.make_tower_on(world / "tower", BASE)
    for stage in llava_runs.SCRIPTS:
        (world / f"{stage}.yaml").write_text(yaml.safe_dump(llava_runs.run_block(world, stage), sort_keys=False))
        start = ["model.pretrain_mm_mlp_adapter=" + str(world / "out-pretrain")] if stage == "finetune" else []
        assert training.run_here(llava_runs.STAGES[stage], world / f"{stage}.yaml", start) == 0
    return world


@pytest.fixture(scope="module")
def merged(way):
    """Output of merging the tuned model."""
    path = merge_runs.write_yaml(way, way / "out-finetune", way / "data" / "images", max_steps=30, save_steps=40)
    assert merge_runs.run(path) == 0
    return way / "out"


def ask(folder, images) -> list[str]:
    talk = Chat.load(folder, device="cpu")
    pictures = sorted(images.iterdir())[:3]
    return talk.ask_many(pictures, ["what is red ?"] * 3, max_new_tokens=4, batch_size=2)


@torch.no_grad()
def test_experts_were_trained_and_the_base_was_not(way):
    from transformers import AutoModel

    tower = open_checkpoint(way / "out-finetune").tower
    stock = AutoModel.from_pretrained(way / "tower" / "base").eval()
    pixels = torch.randn(2, 3, 16, 16)
    t_clip, t_fuse = tower(pixels).hidden_states
    assert torch.equal(t_clip, stock(pixel_values=pixels, output_hidden_states=True).hidden_states[-2])
    assert (t_fuse - t_clip).abs().max() > 1e-3
    assert len(ask(way / "out-finetune", way / "data" / "images")) == 3


def test_stock_transformers_reads_it_with_the_tower_registered(way):
    from transformers import AutoModelForImageTextToText

    folder = way / "out-finetune"
    config = json.loads((folder / "config.json").read_text())
    assert config["vision_config"]["base"]["architecture"]["model_type"] == "siglip_vision_model"
    assert config["image_seq_length"] == 16
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert model.model.vision_tower.config.base_width == 32


@torch.no_grad()
def test_all_detached_is_the_base(way, tmp_path):
    detach(way / "out-finetune", tmp_path / "gone", experts=("depth", "shapes"), device="cpu", seconds=0.1)
    tower = open_checkpoint(tmp_path / "gone").tower
    t_clip, t_fuse = tower(torch.randn(2, 3, 16, 16)).hidden_states
    assert torch.equal(t_clip, t_fuse)
    assert len(ask(tmp_path / "gone", way / "data" / "images")) == 3


@torch.no_grad()
def test_merging_writes_a_stock_siglip_that_llava_reads(way, merged):
    from transformers import AutoModel, LlavaForConditionalGeneration, SiglipVisionModel

    student = AutoModel.from_pretrained(merged / "clip").eval()
    assert type(student) is SiglipVisionModel
    tower = open_checkpoint(way / "out-finetune").tower
    pixels = torch.randn(4, 3, 16, 16)
    t_clip, t_fuse = tower(pixels).hidden_states
    learnt = student(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
    assert not torch.equal(learnt, t_clip)
    before, after = (
        {name.removeprefix("vision_model."): tensor for name, tensor in training.weights(folder).items()}
        for folder in (way / "tower" / "base", merged / "clip")
    )
    same = {name for name in after if torch.equal(before[name], after[name])}
    assert {"post_layernorm.weight", "encoder.layers.2.mlp.fc1.weight"} <= same, "not read, so not trained"
    assert "encoder.layers.0.mlp.fc1.weight" not in same
    report = json.loads((merged / "clip" / "merge.json").read_text())
    assert report["gap"] < 1
    assert "SiglipVisionModel.from_pretrained" in (merged / "clip" / "README.md").read_text()
    lvlm = LlavaForConditionalGeneration.from_pretrained(merged / "lvlm").eval()
    config = lvlm.config
    assert (config.vision_feature_layer, config.vision_feature_select_strategy, config.image_seq_length) == (
        -2,
        "full",
        16,
    )
    seen = lvlm.model.vision_tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(seen, learnt.to(seen.dtype), atol=2e-2, rtol=2e-2)
    assert len(ask(merged / "lvlm", way / "data" / "images")) == 3


def test_tuning_goes_on_from_the_merged_parts(way, merged):
    options = [
        f"model.vision_tower={merged / 'clip'}",
        f"model.llm={merged / 'llm'}",
        f"model.pretrain_mm_mlp_adapter={merged / 'pretrain'}",
        f"train.output_dir={way / 'out-retuned'}",
        "train.max_steps=2",
    ]
    assert training.run_here(llava_runs.STAGES["finetune"], way / "finetune.yaml", options) == 0
    assert len(ask(way / "out-retuned", way / "data" / "images")) == 3


def test_the_base_alone_is_the_baseline(way):
    options = ["model.vision_tower=clip", f"train.output_dir={way / 'out-base'}", "train.max_steps=2"]
    assert training.run_here(llava_runs.STAGES["pretrain"], way / "pretrain.yaml", options) == 0
    tuned = [*options[:1], f"train.output_dir={way / 'out-base-tuned'}", "train.max_steps=2"]
    tuned.append(f"model.pretrain_mm_mlp_adapter={way / 'out-base'}")
    assert training.run_here(llava_runs.STAGES["finetune"], way / "finetune.yaml", tuned) == 0
    assert len(ask(way / "out-base-tuned", way / "data" / "images")) == 3


# ---- what cannot be done is said ----


@pytest.mark.parametrize(
    ("model_type", "strategy"),
    [("siglip_vision_model", "full"), ("dinov2", "default"), ("dinov2_with_registers", None)],
)
def test_llava_reads_encoders_with_one_token_besides_the_patches_at_most(tmp_path, model_type, strategy):
    from transformers import AutoImageProcessor, AutoModel

    folder = tiny_bases.make_base(tmp_path, model_type)
    encoder, processor = AutoModel.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder, backend="pil")
    if strategy is None:
        with pytest.raises(ConfigError, match="at most one class token"):
            stock_vision(encoder, processor, -2)
        return
    vision = stock_vision(encoder, processor, -2)
    assert (vision.select_strategy, vision.num_tokens, vision.patch_size) == (strategy, 16, 4)
    with pytest.raises(ConfigError, match="has 3 layers"):
        stock_vision(encoder, processor, 7)


def test_an_encoder_that_takes_no_images_is_no_tower_of_llava(tmp_path):
    from transformers import AutoImageProcessor, Siglip2VisionConfig, Siglip2VisionModel

    folder = tiny_bases.make_base(tmp_path, "siglip_vision_model")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    encoder = Siglip2VisionModel(Siglip2VisionConfig(**sizes, patch_size=4, num_patches=16))
    with pytest.raises(ConfigError, match="a Siglip2VisionModel does not take images as LLaVA gives them"):
        stock_vision(encoder, AutoImageProcessor.from_pretrained(folder, backend="pil"), -1)


def test_an_lvlm_is_left_out_where_llava_cannot_read_the_tokens(way, tmp_path, capfd):
    tower = yaml.safe_load((way / "tower" / "tower.yaml").read_text())
    tower["base"] |= {"layer": None, "pretrained": str(way / "tower" / "base")}
    for entry in tower["experts"]:
        entry["pretrained"] = str(way / "tower" / entry["name"])
    (tmp_path / "tower.yaml").write_text(yaml.safe_dump(tower))
    out = tmp_path / "stage1"
    options = [f"model.tower={tmp_path / 'tower.yaml'}", f"train.output_dir={out}", "train.max_steps=2"]
    assert training.run_here(llava_runs.STAGES["pretrain"], way / "pretrain.yaml", options) == 0
    path = merge_runs.write_yaml(tmp_path, out, way / "data" / "images", max_steps=2)
    assert merge_runs.run(path) == 0
    said = capfd.readouterr().err
    assert said.index("state the base's `layer`") < said.rindex("step 1/2"), "before training"
    assert (tmp_path / "out" / "clip" / "model.safetensors").is_file()
    assert not (tmp_path / "out" / "lvlm").exists()


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_qwens_encoder_trains_answers_and_is_merged_into_its_own_class(way, tmp_path, kind, capfd):
    tiny_qwen.make_qwen(tmp_path / "base", kind, 32)
    base = {"family": "transformers", "pretrained": "./base", "image_size": 32}
    path = tiny_bases.make_tower_on(tmp_path, base)
    out = tmp_path / "stage1"
    options = [f"model.tower={path}", f"train.output_dir={out}", "train.max_steps=2"]
    assert training.run_here(llava_runs.STAGES["pretrain"], way / "pretrain.yaml", options) == 0
    options = [f"model.tower={path}", f"model.pretrain_mm_mlp_adapter={out}"]
    options += [f"train.output_dir={tmp_path / 'tuned'}", "train.max_steps=2"]
    assert training.run_here(llava_runs.STAGES["finetune"], way / "finetune.yaml", options) == 0
    assert len(ask(tmp_path / "tuned", way / "data" / "images")) == 3
    assert (
        merge_runs.run(merge_runs.write_yaml(tmp_path, tmp_path / "tuned", way / "data" / "images", max_steps=3)) == 0
    )
    assert "only clip will be written, no LVLM" in capfd.readouterr().err
    tower = open_checkpoint(tmp_path / "tuned").tower
    encoder_class = type(tower.clip.backbone)
    merged = encoder_class.from_pretrained(tmp_path / "out" / "clip")
    before = tower.clip.backbone.state_dict()
    trained = {name for name, tensor in merged.state_dict().items() if not torch.equal(tensor, before[name])}
    assert "blocks.0.attn.qkv.weight" in trained
    assert not any("deepstack" in name for name in trained), "not read, so not trained"
    assert f"{encoder_class.__name__}.from_pretrained" in (tmp_path / "out" / "clip" / "README.md").read_text()
