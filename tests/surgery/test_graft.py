"""A ToVE tower for a LLaVA model that was trained with a plain CLIP: same logits, nothing re-initialised."""

import json
import shutil

import pytest
import torch
import yaml
from safetensors import safe_open
from typer.testing import CliRunner

from helpers import llava_runs, tiny_towers
from helpers.tiny_checkpoints import build, logits, save
from helpers.tiny_lvlm import make_data
from tove_lvlm.checkpoints.whole import load_whole
from tove_lvlm.cli import app
from tove_lvlm.config import ConfigError, UserError
from tove_lvlm.config.model import MODEL_FILE
from tove_lvlm.recipes.llava import PRETRAIN
from tove_lvlm.storage import WeightsError, load_json, load_tensors, save_json, save_tensors
from tove_lvlm.surgery import graft as grafting
from tove_lvlm.surgery.graft import graft


@pytest.fixture(scope="module")
def plain(tmp_path_factory, llm, tiny_tower_yaml):
    """A CLIP-only model in several shards, its CLIP and layer not those of the tower's YAML."""
    keys = {"vision_tower": "clip", "tower": tiny_tower_yaml, "mm_vision_select_layer": -3}
    model, processor = build(llm, seed=5, **keys)
    with torch.no_grad():
        for parameter in model.model.vision_tower.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return save(tmp_path_factory.mktemp("plain") / "model", model, processor, max_shard_size="60KB")


@pytest.fixture(scope="module")
def grafted(tmp_path_factory, plain, tiny_tower_yaml):
    """The folder that the command wrote."""
    folder = tmp_path_factory.mktemp("grafted") / "model"
    arguments = ["graft", str(plain), "--tower", str(tiny_tower_yaml), "--output", str(folder), "--json"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    told = json.loads(done.stdout)
    assert told["output"] == str(folder)
    assert (told["select_layer"], told["experts"]) == (-3, tiny_towers.EXPERT_NAMES)
    assert 0 < told["trainable"] < told["added"]
    return folder


def logits_of(folder) -> torch.Tensor:
    return logits(load_whole(folder)[0])


def on_disk(folder) -> dict[str, torch.Tensor]:
    return load_tensors(folder)


def test_same_logits_to_the_bit(plain, grafted):
    assert torch.equal(logits_of(grafted), logits_of(plain))


def test_every_old_tensor_is_there_and_the_clip_is_the_checkpoints_own(plain, grafted, tiny_tower_yaml):
    old, new = on_disk(plain), on_disk(grafted)
    for key, tensor in old.items():
        assert torch.equal(new.pop(key.replace("vision_tower.", "vision_tower.clip.")), tensor), key
    assert {key.split(".")[1] for key in new} == {"experts", "tove_fusion"}
    other = load_tensors(tiny_tower_yaml.parent / "clip")
    assert not any(torch.equal(old[f"vision_tower.{key}"], other[key]) for key in other if key.endswith("fc1.weight"))
    model, processor = load_whole(grafted)
    tower, config = model.model.vision_tower, model.config
    assert (config.vision_feature_layer, config.vision_feature_select_strategy) == (-1, "full")
    assert (tower.config.select_layer, config.image_seq_length) == (-3, tiny_towers.SIDE**2)
    assert (processor.num_additional_image_tokens, processor.vision_feature_select_strategy) == (0, "full")
    assert not tower.tove_fusion.shared_out.weight.any()
    assert all(module.weight.abs().sum() > 0 for module in (tower.tove_fusion.gate.fc1, tower.tove_fusion.gate.fc2))


def test_the_processor_pads_as_training_did(plain, grafted, tiny_tower_yaml, tmp_path):
    assert not load_whole(grafted)[1].image_processor.do_pad
    of_the_hub = shutil.copytree(plain, tmp_path / "plain")
    (of_the_hub / MODEL_FILE).unlink()  # LLaVA 1.5 padded, and its checkpoints do not say so
    graft(of_the_hub, tiny_tower_yaml, tmp_path / "grafted")
    assert load_whole(tmp_path / "grafted")[1].image_processor.do_pad


def test_it_stays_in_shards_and_the_index_tells_them(plain, grafted):
    files = sorted(grafted.glob("*.safetensors"))
    assert len(files) == len(list(plain.glob("*.safetensors"))) + 1 > 4
    index = load_json(grafted / "model.safetensors.index.json")
    held = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            held |= dict.fromkeys(opened.keys(), file.name)
    assert index["weight_map"] == held
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in on_disk(grafted).values())
    assert {file.stat().st_mode & 0o044 for file in files} == {0o044}


def test_older_layouts_give_the_same(plain, grafted, tiny_tower_yaml, tmp_path):
    """CLIP in its wrapper with a position table, as the models on the hub have it; one pickled file; half precision."""
    old = shutil.copytree(plain, tmp_path / "old", ignore=shutil.ignore_patterns("*.safetensors*"))
    tensors = {k.replace("vision_tower.", "vision_tower.vision_model."): t.half() for k, t in on_disk(plain).items()}
    table = {"vision_tower.vision_model.embeddings.position_ids": torch.arange(17)[None]}
    torch.save(tensors | table, old / "pytorch_model.bin")
    graft(old, tiny_tower_yaml, tmp_path / "new")
    found = on_disk(tmp_path / "new")
    assert found.keys() == on_disk(grafted).keys()
    assert {tensor.dtype for tensor in found.values() if tensor.is_floating_point()} == {torch.float16}
    model, _ = load_whole(tmp_path / "new", torch.float32)
    torch.testing.assert_close(logits(model), logits_of(plain), atol=0.05, rtol=0.05)


def test_only_the_fusion_trains_and_one_step_lowers_the_loss(grafted, tmp_path, monkeypatch):
    """The scripts' own code from the grafted folder on; then stage 1's folder opens again on top of it."""
    from tove_lvlm.checkpoints import open_checkpoint
    from tove_lvlm.train.launch import prepare_environment
    from tove_lvlm.train.run import build_trainer, write_results
    from tove_lvlm.train.stage import load_run

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    make_data(tmp_path / "data", num=4)
    block = llava_runs.run_block(tmp_path, "pretrain")
    block["model"] = {"llm": str(grafted), "vision_tower": str(grafted)}
    block["train"] |= {"max_steps": 1, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    block["train"] |= {"freeze_mm_mlp_adapter": True, "balance_loss_weight": 0.0, "warmup_ratio": 0.0}
    (tmp_path / "pretrain.yaml").write_text(yaml.safe_dump(block))
    run = load_run(PRETRAIN, tmp_path / "pretrain.yaml", ["train.mm_projector_lr=1e-3"])
    prepare_environment(run, None)
    trainer, work = build_trainer(PRETRAIN, run)
    model = trainer.model
    assert all(("tove_fusion" in n) == p.requires_grad for n, p in model.named_parameters())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    given = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])
    given.pop("sample_ids")

    def loss() -> float:
        with torch.no_grad():
            return model.eval()(**given).loss.item()

    first = loss()
    trainer.train()
    assert loss() < first - 1e-4
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all(".tove_fusion." in name for name in moved), moved
    write_results(run, trainer, work.results(trainer))
    opened = open_checkpoint(run.train.output_dir)
    assert opened.kind == "stage1"
    state = opened.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_freezing_a_new_projector_is_refused(grafted, tmp_path, tiny_tower_yaml):
    from tove_lvlm.train.stage import load_run

    make_data(tmp_path / "data", num=4)
    for stage, message in (("pretrain", "the projector is a new one"), ("finetune", "it is for stage 1")):
        block = llava_runs.run_block(tmp_path, stage)
        block["model"] = {"llm": str(grafted), "tower": str(tiny_tower_yaml)}
        (tmp_path / f"{stage}.yaml").write_text(yaml.safe_dump(block))
        with pytest.raises(ConfigError, match=message):
            load_run(llava_runs.STAGES[stage], tmp_path / f"{stage}.yaml", ["train.freeze_mm_mlp_adapter=true"])


# ---- what does not fit ----


@pytest.fixture
def changed(plain, tmp_path):
    """`changed(**fields)`: the plain model with another config.json."""

    def make(**fields):
        folder = shutil.copytree(plain, tmp_path / "changed")
        save_json(folder / "config.json", load_json(folder / "config.json") | fields)
        return folder

    return make


def refused(kind, message, checkpoint, tower, output, options=()):
    with pytest.raises(kind, match=message):
        graft(checkpoint, tower, output, options)
    assert not output.exists()
    assert not list(output.parent.glob(f".{output.name}*")), "nothing half written is left"


def test_another_clip_is_refused_with_the_sizes(plain, tiny_tower_yaml, tmp_path):
    message = r"is not that of .*num_hidden_layers 3 \(the YAML's: 2\)"
    refused(UserError, message, plain, tiny_tower_yaml, tmp_path / "out", ["clip.architecture.num_hidden_layers=2"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vision_feature_select_strategy": "full"}, "stands in for the patch tokens"),
        ({"vision_feature_layer": [-2, -1]}, "stands in for the patch tokens"),
        ({"model_type": "llama"}, "type `llama`; expected a LLaVA model"),
        ({"mm_vision_tower": "openai/clip"}, "layout of LLaVA's own code"),
    ],
)
def test_a_model_of_another_kind_is_refused(changed, tiny_tower_yaml, tmp_path, fields, message):
    refused(UserError, message, changed(**fields), tiny_tower_yaml, tmp_path / "out")


def test_a_grafted_model_is_not_grafted_twice(grafted, tiny_tower_yaml, tmp_path):
    refused(UserError, "has a ToVE tower already", grafted, tiny_tower_yaml, tmp_path / "out")


def test_missing_folder_and_missing_clip_tensor_are_named(plain, tiny_tower_yaml, tmp_path):
    refused(UserError, "nowhere` is no folder", tmp_path / "nowhere", tiny_tower_yaml, tmp_path / "out")
    folder = shutil.copytree(plain, tmp_path / "lacking", ignore=shutil.ignore_patterns("*.safetensors*"))
    tensors = on_disk(plain)
    tensors.pop("vision_tower.encoder.layers.1.mlp.fc1.bias")
    save_tensors(folder / "model.safetensors", tensors)
    refused(WeightsError, r"1 missing \(.*layers.1.mlp.fc1.bias\)", folder, tiny_tower_yaml, tmp_path / "out")


def test_nothing_is_left_when_writing_fails_and_nothing_is_overwritten(plain, tiny_tower_yaml, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        graft(plain, tiny_tower_yaml, tmp_path / "full")
    assert [entry.name for entry in (tmp_path / "full").iterdir()] == ["notes.txt"]

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(grafting, "_new_config", fail)
    refused(UserError, "cannot be written: disk full", plain, tiny_tower_yaml, tmp_path / "out")
