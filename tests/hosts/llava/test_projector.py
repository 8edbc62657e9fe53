"""What LLaVA writes and reads back: nothing of the tower's trainable part may be lost on the way.

Saved by LLaVA's own functions, loaded by its own `load_pretrained_model`.

See docs/hosts.md, "Projector in LLaVA".
"""

import copy
import json

import pytest
import torch

from helpers import tiny_llava, tiny_towers
from tove_lvlm import build_tower
from tove_lvlm.config import UserError
from tove_lvlm.storage import WeightsError, load_tensors, save_tensors

LAYOUTS = {"projector": "llava-tove-pretrain", "lora": "llava-tove-lora", "merged": "llava-tove"}
HALF = torch.float16


@pytest.fixture(scope="module")
def llava():
    return tiny_llava.load()


@pytest.fixture(scope="module")
def name(tiny_tower_yaml):
    return f"tove:{tiny_tower_yaml}"


@pytest.fixture(scope="module")
def saved(llava, llm, name, tmp_path_factory):
    """layout -> (folder, the model that was saved)."""
    root = tmp_path_factory.mktemp("saved")
    found = {}
    for layout, folder in LAYOUTS.items():
        stage1 = layout == "projector"
        model = tiny_llava.build(llava, llm, name, lora=layout == "lora", tune_mm_mlp_adapter=stage1)
        found[layout] = (tiny_llava.save(llava, model, root / folder, layout), model)
    return found


def base_of(layout, llm):
    return None if layout == "merged" else llm


def projector_of(tensors):
    return {key.split("mm_projector.")[1]: tensor for key, tensor in tensors.items() if "mm_projector" in key}


def change(folder, tmp_path, file, edit):
    """A copy of a checkpoint whose tensors `edit` has changed in place."""
    import shutil

    copied = tmp_path / folder.name
    shutil.copytree(folder, copied)
    tensors = load_tensors(copied / file)
    edit(tensors)
    if file.endswith(".bin"):
        torch.save(tensors, copied / file)
    else:
        save_tensors(copied / file, tensors)
    return copied


FILES = {"projector": "mm_projector.bin", "lora": "non_lora_trainables.bin", "merged": "model.safetensors"}


# ---- there and back ----


@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_logits_and_tokens_after_llavas_own_loader(llava, llm, saved, layout):
    folder, model = saved[layout]
    before = tiny_llava.halve(copy.deepcopy(model))
    loaded, image_processor = tiny_llava.reload(llava, folder, base_of(layout, llm))
    own = before.model.mm_projector.state_dict()
    assert all(torch.equal(own[key], tensor) for key, tensor in loaded.model.mm_projector.state_dict().items())
    assert torch.equal(tiny_llava.logits(loaded, HALF), tiny_llava.logits(before, HALF))
    assert tiny_llava.generate(loaded, HALF) == tiny_llava.generate(before, HALF)
    assert type(image_processor).__name__ == "ToVEImageProcessor"
    assert not any(tensor.is_meta for tensor in [*loaded.parameters(), *loaded.buffers()])


def test_the_tokens_depend_on_the_experts(llava, llm, saved):
    """Else the test above could not fail."""
    loaded, _ = tiny_llava.reload(llava, saved["merged"][0], None)
    before = tiny_llava.logits(loaded, HALF)
    loaded.get_vision_tower().vision_tower.detach("cnn")
    assert (tiny_llava.logits(loaded, HALF) - before).abs().max() > 0.05


def test_path_survives_saving_from_any_folder(llava, llm, tiny_tower_yaml, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_tower_yaml.parent)
    model = tiny_llava.build(llava, llm, "tove:tower.yaml")
    folder = tiny_llava.save(llava, model, tmp_path / "llava-tove", "merged")
    monkeypatch.chdir(tmp_path)
    assert json.loads((folder / "config.json").read_text())["mm_vision_tower"] == f"tove:{tiny_tower_yaml.resolve()}"
    loaded, _ = tiny_llava.reload(llava, folder, None)
    assert loaded.config.mm_vision_tower == f"tove:{tiny_tower_yaml.resolve()}"


def test_frozen_weights_come_from_the_source(llava, saved, tiny_tower_yaml, tmp_path):
    """A whole checkpoint holds the tower's weights too, and LLaVA never reads them: they are those of PATH anyway."""

    def spoil(tensors):
        for key in tensors:
            if "vision_tower" in key:
                tensors[key] = torch.zeros_like(tensors[key])

    loaded, _ = tiny_llava.reload(llava, change(saved["merged"][0], tmp_path, FILES["merged"], spoil), None)
    tower = build_tower(tiny_tower_yaml).to(HALF)
    held = loaded.get_vision_tower().vision_tower
    assert all(torch.equal(held.clip.state_dict()[key], t) for key, t in tower.clip.state_dict().items())
    assert all(torch.equal(held.experts.state_dict()[key], t) for key, t in tower.experts.state_dict().items())
    buffers = dict(tower.named_buffers())
    assert all(torch.equal(buffer, buffers[key]) for key, buffer in held.named_buffers())


# ---- stage 1 trains and saves what is called mm_projector ----


def test_llavas_filter_saves_every_trainable(saved):
    folder, model = saved["projector"]
    trainable = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert any(".gate." in key for key in trainable)
    assert set(load_tensors(folder / "mm_projector.bin")) == trainable
    assert all(key.count("mm_projector") == 1 for key in trainable)  # LLaVA's loader splits there


def test_stage_2_starts_from_stage_1(llava, llm, name, saved):
    folder, trained = saved["projector"]
    adapter = str(folder / "mm_projector.bin")
    model = tiny_llava.build(llava, llm, name, lora=True, awake=False, pretrain_mm_mlp_adapter=adapter)
    own = trained.model.mm_projector.state_dict()
    assert all(torch.equal(own[key], t) for key, t in model.get_model().mm_projector.state_dict().items())
    lora = {key for key, _ in model.named_parameters() if "lora_" in key}
    assert lora
    assert not any("vision_tower" in key or "mm_projector" in key for key in lora)
    trained_now = {key for key, p in model.named_parameters() if p.requires_grad and "lora_" not in key}
    assert {key.split("mm_projector.")[1] for key in trained_now if "mm_projector" in key} == own.keys()
    assert not any("vision_tower" in key for key in trained_now)


def test_the_projector_has_its_own_learning_rate(llava, saved):
    """LLaVA's trainer finds it by its name; the gate is among what it finds."""
    model = saved["projector"][1]
    found = [key for key, _ in model.named_parameters() if "mm_projector" in key]
    assert {key for key in found if "tove_fusion.gate" in key}


# ---- a checkpoint that does not fit is refused before the language model is read ----


def remove(key):
    return lambda tensors: tensors.pop(next(name for name in sorted(tensors) if key in name))


def add(key):
    def edit(tensors):
        like = next(name for name in tensors if "mm_projector.0.weight" in name)
        tensors[like.replace("0.weight", key)] = torch.zeros(1)

    return edit


def reshape(key):
    def edit(tensors):
        name = next(name for name in tensors if key in name)
        tensors[name] = torch.zeros(3, 3)

    return edit


def swap_out_layer(tensors):
    shared = [name for name in tensors if "tove_fusion.shared_out." in name]
    for name in shared:
        tensors[name.replace("shared_out.", "transfers.depth.fc2.")] = tensors.pop(name)


def drop_all(tensors):
    for name in [name for name in tensors if "mm_projector" in name]:
        del tensors[name]


EDITS = {
    "missing gate": (remove("gate.fc1.weight"), r"1 missing \(tove_fusion.gate.fc1.weight\)"),
    "missing layer": (remove("mm_projector.2.bias"), r"1 missing \(2.bias\)"),
    "foreign expert": (add("tove_fusion.transfers.sam.fc1.weight"), r"1 unexpected \(tove_fusion.transfers.sam"),
    "before shared_out": (
        swap_out_layer,
        r".*`fusion: \{transfer: separate\}`: write that in the tower's YAML and `expert_resample: bilinear`",
    ),
    "another width": (reshape("mm_projector.0.weight"), r"0.weight \(3, 3\) on disk, \(32, 32\) expected"),
    "no projector": (drop_all, r"\d+ missing \(0.bias"),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_projector_that_does_not_fit(llava, llm, saved, tmp_path, monkeypatch, layout, edit):
    change_it, message = EDITS[edit]
    folder = change(saved[layout][0], tmp_path, FILES[layout], change_it)
    monkeypatch.setattr(llava.llama.LlavaLlamaForCausalLM, "from_pretrained", None)  # it must not come so far
    where = folder if layout == "merged" else folder / FILES[layout]
    with pytest.raises(WeightsError, match=f"{where}: the projector does not fit its ToVE tower: .*{message}"):
        tiny_llava.reload(llava, folder, base_of(layout, llm))


def test_a_missing_file(llava, llm, saved, tmp_path):
    for layout in ("projector", "lora"):
        folder = change(saved[layout][0], tmp_path, FILES[layout], lambda tensors: None)
        (folder / FILES[layout]).unlink()
        with pytest.raises(WeightsError, match=rf"{FILES[layout]}` do not exist"):
            tiny_llava.reload(llava, folder, llm)


def test_a_tower_that_is_gone(llava, saved, tmp_path):
    folder = change(saved["merged"][0], tmp_path, FILES["merged"], lambda tensors: None)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"mm_vision_tower": "tove:/nowhere/tower.yaml"}))
    with pytest.raises(UserError, match="mm_vision_tower: tove:/nowhere/tower.yaml"):
        tiny_llava.reload(llava, folder, None)


def test_a_tower_with_other_experts(llava, saved, tmp_path):
    other = tiny_towers.make_tower_yaml(tmp_path / "other", experts=["depth"])
    folder = change(saved["merged"][0], tmp_path, FILES["merged"], lambda tensors: None)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"mm_vision_tower": f"tove:{other}"}))
    with pytest.raises(WeightsError, match=r"unexpected \(tove_fusion.transfers.cnn"):
        tiny_llava.reload(llava, folder, None)


def test_an_adapter_of_a_plain_clip_before_training(llava, llm, name, tiny_tower_yaml, tmp_path):
    plain = tiny_llava.build(llava, llm, str(tiny_tower_yaml.parent / "clip"), tune_mm_mlp_adapter=True)
    folder = tiny_llava.save(llava, plain, tmp_path / "llava-clip", "projector")
    adapter = str(folder / "mm_projector.bin")
    with pytest.raises(WeightsError, match=rf"{adapter}: .*missing \(tove_fusion.*trained with another vision tower"):
        tiny_llava.build(llava, llm, name, pretrain_mm_mlp_adapter=adapter)


def test_an_adapter_of_another_clip_width(llava, llm, name, saved, tmp_path):
    folder = change(saved["projector"][0], tmp_path, FILES["projector"], reshape("mm_projector.0.weight"))
    adapter = str(folder / FILES["projector"])
    with pytest.raises(WeightsError, match=rf"{adapter}: .*0.weight \(3, 3\) on disk, \(3, 32\) expected"):
        tiny_llava.build(llava, llm, name, pretrain_mm_mlp_adapter=adapter)


# ---- the same without our look at the files: transformers and torch alone are lenient ----


def test_from_pretrained_of_a_checkpoint_that_lacks_a_part(llava, saved, tmp_path):
    folder = change(saved["merged"][0], tmp_path, FILES["merged"], remove("gate.fc1.weight"))
    with pytest.raises(WeightsError, match=rf"{folder}: .*1 missing \(tove_fusion.gate.fc1.weight\)"):
        llava.llama.LlavaLlamaForCausalLM.from_pretrained(folder)


def test_from_pretrained_of_a_plain_clip_llava_renamed(llava, llm, name, tiny_tower_yaml, tmp_path):
    plain = tiny_llava.build(llava, llm, str(tiny_tower_yaml.parent / "clip"))
    folder = tiny_llava.save(llava, plain, tmp_path / "llava-clip", "merged")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"mm_vision_tower": name}))
    with pytest.raises(WeightsError, match=r"missing \(tove_fusion.*`tove graft`"):
        llava.llama.LlavaLlamaForCausalLM.from_pretrained(folder)


def test_a_lenient_state_dict(llava, saved):
    model = copy.deepcopy(saved["projector"][1])
    state = {f"model.mm_projector.{key}": t for key, t in model.model.mm_projector.state_dict().items()}
    model.load_state_dict(state, strict=False)
    model.load_state_dict({"lm_head.weight": model.lm_head.weight}, strict=False)  # none of it: no concern of ours
    state.pop("model.mm_projector.tove_fusion.gate.fc2.bias")
    with pytest.raises(WeightsError, match=r"`model.mm_projector`.*1 missing \(tove_fusion.gate.fc2.bias\)"):
        model.load_state_dict(state, strict=False)


def test_a_base_model_with_the_config_starts_at_clip_and_not_at_random(llava, llm, saved):
    """The moment before LLaVA puts mm_projector.bin into it: transformers has given first values to what is missing."""
    config = llava.llama.LlavaConfig.from_pretrained(saved["projector"][0])
    model = llava.llama.LlavaLlamaForCausalLM.from_pretrained(llm, config=config)
    fusion = model.model.mm_projector.tove_fusion
    assert not fusion.shared_out.weight.any()
    assert not any(tensor.is_meta for tensor in model.parameters())
    assert not model.get_vision_tower().is_loaded
