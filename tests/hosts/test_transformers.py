"""A saved ToVE_Vicuna in unmodified transformers 5: auto classes, generate, pipeline, device maps, attention, and what
must never be silently random (docs/hosts.md, "transformers").
"""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaForConditionalGeneration,
    pipeline,
)

import tove_lvlm
from helpers import tiny_towers
from helpers.tiny_checkpoints import build, image_inputs, logits, save
from tove_lvlm.checkpoints.whole import load_whole
from tove_lvlm.config import UserError
from tove_lvlm.storage import WeightsError, load_tensors, save_tensors


@pytest.fixture(scope="module")
def saved(llm, tiny_tower_yaml, tmp_path_factory):
    """(folder, the model that was saved there): ToVE_Vicuna in small, fusion and projector awake."""
    model, processor = build(llm, tower=tiny_tower_yaml)
    return save(tmp_path_factory.mktemp("transformers") / "saved", model, processor), model


@pytest.fixture
def broken(saved, tmp_path):
    """`broken(change)`: a copy of the folder whose tensors went through `change`."""

    def make(change):
        folder = shutil.copytree(saved[0], tmp_path / "broken")
        save_tensors(folder / "model.safetensors", change(load_tensors(folder)))
        return folder

    return make


def picture() -> Image.Image:
    """The same each time: Pillow's own noise is not, and in bfloat16 random weights nearly tie on some pictures."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8))


# ---- it works as any other model ----


def test_auto_classes_find_everything(saved):
    folder, model = saved
    assert type(AutoConfig.from_pretrained(folder).vision_config) is tove_lvlm.ToVEVisionConfig
    assert type(AutoImageProcessor.from_pretrained(folder)) is tove_lvlm.ToVEImageProcessor
    assert type(AutoProcessor.from_pretrained(folder).image_processor) is tove_lvlm.ToVEImageProcessor
    assert type(AutoModel.from_pretrained(folder).vision_tower) is tove_lvlm.ToVEVisionModel
    loaded = AutoModelForImageTextToText.from_pretrained(folder)
    assert type(loaded) is LlavaForConditionalGeneration
    assert torch.equal(logits(loaded.eval()), logits(model))


@pytest.mark.parametrize("shard", ["5GB", "60KB"])
def test_saved_and_loaded_again_is_the_same_to_the_bit(saved, tmp_path, shard):
    folder, model = saved
    first = LlavaForConditionalGeneration.from_pretrained(folder)
    first.save_pretrained(tmp_path, max_shard_size=shard)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 3) == (shard == "60KB")
    second, report = LlavaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert first.state_dict().keys() == second.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(logits(second.eval()), logits(model))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_generate_and_pipeline(saved, dtype):
    folder, _ = saved
    processor = AutoProcessor.from_pretrained(folder)
    pipe = pipeline("image-text-to-text", model=folder, dtype=dtype, device_map="auto")
    assert pipe.model.dtype == pipe.model.model.vision_tower.dtype == dtype
    image = picture()
    talk = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "what ?"}]}]
    told = pipe(text=talk, max_new_tokens=5, return_full_text=False, generate_kwargs={"do_sample": False})
    text = processor.apply_chat_template(talk, add_generation_prompt=True)
    batch = processor(images=[image], text=text, return_tensors="pt")  # float32 pixels, whatever the model's dtype
    ids = pipe.model.generate(**batch, max_new_tokens=5, do_sample=False)[0, batch["input_ids"].shape[1] :]
    assert len(ids) > 0
    assert told[0]["generated_text"].strip() == processor.decode(ids, skip_special_tokens=True).strip()


# ---- device maps ----

PARTS = [
    "model.vision_tower.clip",
    "model.vision_tower.experts.depth",
    "model.vision_tower.experts.normals",
    "model.vision_tower.experts.shapes",
    "model.vision_tower.experts.cnn",
    "model.vision_tower.tove_fusion",
    "model.multi_modal_projector",
    "model.language_model",
    "lm_head",
]


@pytest.mark.parametrize(
    "where",
    [
        {"device_map": "auto"},
        {"device_map": "auto", "max_memory": {"cpu": 400_000}},
        {"device_map": dict.fromkeys(PARTS, "cpu") | dict.fromkeys((PARTS[3], PARTS[5]), "disk")},
    ],
)
def test_device_map_splits_the_tower_and_nothing_changes(saved, tmp_path, where):
    folder, model = saved
    loaded = LlavaForConditionalGeneration.from_pretrained(folder, offload_folder=tmp_path, **where).eval()
    places = getattr(loaded, "hf_device_map", {"": "cpu"})
    assert ("disk" in places.values()) == (where != {"device_map": "auto"}), places
    assert torch.equal(logits(loaded), logits(model))
    if where.get("max_memory"):  # inside one expert nothing may be split
        assert any(name.startswith("model.vision_tower.") for name in places)
        assert not any(name.count(".") > 3 for name in places if ".experts." in name), places


def test_offloaded_checkpoint_that_lacks_a_tensor_is_refused_all_the_same(broken, tmp_path):
    folder = broken(lambda tensors: {k: t for k, t in tensors.items() if not k.endswith("shapes.fc1.weight")})
    with pytest.raises(WeightsError, match=r"lacks 1 of .*tove_fusion.transfers.shapes.fc1.weight"):
        LlavaForConditionalGeneration.from_pretrained(folder, device_map={"": "disk"}, offload_folder=tmp_path)


# ---- attention ----


def switches(tower) -> tuple[str, set[bool]]:
    """(CLIP's implementation, timm's switch in all experts)."""
    found = {module.fused_attn for module in tower.experts.modules() if hasattr(module, "fused_attn")}
    return tower.clip.encoder.layers[0].self_attn.config._attn_implementation, found


def test_attn_implementation_reaches_clip_and_experts(saved):
    folder, model = saved
    results = {}
    for name, fused in (("eager", False), ("sdpa", True)):
        loaded = LlavaForConditionalGeneration.from_pretrained(folder, attn_implementation=name).eval()
        assert switches(loaded.model.vision_tower) == (name, {fused})
        results[name] = logits(loaded)
    assert torch.equal(results["sdpa"], logits(model))
    torch.testing.assert_close(results["eager"], results["sdpa"], atol=1e-4, rtol=1e-4)


def test_attn_implementation_is_changed_on_a_loaded_model(saved):
    loaded = LlavaForConditionalGeneration.from_pretrained(saved[0]).eval()
    tower = loaded.model.vision_tower
    for name, fused in (("eager", False), ("sdpa", True)):
        loaded.set_attn_implementation(name)
        logits(loaded)
        assert switches(tower) == (name, {fused})
    tower.set_attn_implementation("eager")
    tower.detach("shapes")
    tower.attach()
    logits(loaded)
    assert switches(tower) == ("eager", {False}), "an expert that comes back follows too"


# ---- never silently random, never without the experts ----


@pytest.mark.parametrize(
    ("part", "count"),
    [
        ("vision_tower.", None),
        ("vision_tower.clip.", None),
        ("vision_tower.experts.", None),
        ("vision_tower.tove_fusion.", None),
        ("vision_tower.tove_fusion.gate.fc2.weight", 1),
    ],
)
def test_missing_tower_tensors_raise_and_are_named(broken, part, count):
    folder = broken(lambda tensors: {k: t for k, t in tensors.items() if not k.startswith(part)})
    first = part.removeprefix("vision_tower.").replace(".", r"\.")
    for load in (LlavaForConditionalGeneration.from_pretrained, AutoModel.from_pretrained, load_whole):
        with pytest.raises(WeightsError, match=rf"lacks {count or '[0-9]+'} of [0-9]+ tensors of the tower \({first}"):
            load(folder)
    with pytest.raises(WeightsError, match=str(folder)):
        load_whole(folder)


def test_a_tower_tensor_of_another_shape_is_not_replaced_by_a_random_one(broken):
    key = "vision_tower.tove_fusion.gate.fc1.weight"
    folder = broken(lambda tensors: tensors | {key: torch.zeros(3, 3)})
    with pytest.raises(RuntimeError, match="above report"):
        LlavaForConditionalGeneration.from_pretrained(folder)
    with pytest.raises(WeightsError, match="gate.fc1.weight.*another shape"):
        LlavaForConditionalGeneration.from_pretrained(folder, ignore_mismatched_sizes=True)


def test_left_over_tower_tensors_are_named(broken):
    folder = broken(lambda tensors: tensors | {"vision_tower.experts.sam.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=rf"{folder}.*1 unexpected.*experts.sam.weight"):
        load_whole(folder)


def test_left_over_tensors_of_a_saved_tower_are_named(saved, tmp_path):
    saved[1].model.vision_tower.save_pretrained(tmp_path)
    tensors = load_tensors(tmp_path)
    save_tensors(tmp_path / "model.safetensors", tensors | {"experts.sam.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=rf"{tmp_path}.*no place for \(experts.sam.weight"):
        AutoModel.from_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"detached": ["cnn"]}))
    save_tensors(tmp_path / "model.safetensors", tensors)
    assert AutoModel.from_pretrained(tmp_path).attached_names == ["depth", "normals", "shapes"]


@pytest.mark.parametrize("layer", [-2, 0, [-2]])
def test_a_host_that_selects_another_layer_is_told(saved, layer):
    """transformers would take CLIP's tokens, and neither gate nor experts would have a say or a gradient."""
    loaded = LlavaForConditionalGeneration.from_pretrained(saved[0], vision_feature_layer=layer)
    with pytest.raises(ValueError, match=r"selects layer (-2|0) of the tower.*`vision_feature_layer` to -1"):
        loaded(**image_inputs(loaded))


@pytest.mark.parametrize("change", [{"vision_feature_layer": -2}, {"vision_feature_select_strategy": "default"}])
def test_our_loader_refuses_a_config_that_reads_the_tower_wrongly(saved, tmp_path, change):
    folder = shutil.copytree(saved[0], tmp_path / "changed")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=r"changed/config.json.*read with -1 and `full`"):
        load_whole(folder)


# ---- a path that is none ----


def test_missing_and_foreign_towers(saved, tmp_path):
    folder, _ = saved
    with pytest.raises(WeightsError, match="nowhere` does not exist"):
        tove_lvlm.build_tower(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="empty/config.json` does not exist"):
        tove_lvlm.build_tower(tmp_path / "empty")
    with pytest.raises(WeightsError, match="is no saved tower.*`model_type: llava`"):
        tove_lvlm.build_tower(folder)
    with pytest.raises(WeightsError, match="is no saved tower.*`model_type: clip_vision_model`"):
        tove_lvlm.ToVEVisionModel.from_pretrained(tiny_towers.make_clip(tmp_path / "clip"))
