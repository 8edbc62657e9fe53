"""Configuration: what is wrong is one line that names the key, before torch is imported."""

import subprocess
import sys

import pytest
import yaml

from helpers.paths import ROOT
from helpers.training import environment
from tove_lvlm.config import ConfigError
from tove_lvlm.recipes.llava import PRETRAIN
from tove_lvlm.train.stage import load_run

BAD = [
    (["model.visoin_tower=tove"], "model.visoin_tower", "vision_tower"),
    (["train.learning_rte=1"], "train.learning_rte", "learning_rate"),
    (["trian.seed=1"], "trian", "train"),
    (["train.max_steps=many"], "train.max_steps", "int"),
    (["train.bf16=1"], "train.bf16", "bool"),
    (["data.train=x.json"], "data.train", "list"),
    (["data.train=[./data/none.json]"], "data.train[0]", "does not exist"),
    (["data.image_folder=./data/nowhere"], "data.image_folder", "does not exist"),
    (["data.image_aspect_ratio=anyres"], "data.image_aspect_ratio", "pad"),
    (["data.on_error=ignore"], "data.on_error", "skip"),
    (["model.llm=./nollm"], "model.llm", "does not exist"),
    (["model.llm=shipped:miniature/nollm"], "model.llm", "does not exist"),
    (["model.vision_tower=tovee"], "model.vision_tower", "`tove`"),
    (["model.tower=./tower/twoer.yaml"], "model.tower", "tower.yaml"),
    (["model.tower=null"], "model.tower", "model.vision_tower"),
    (["model.mm_projector_type=linear"], "model.mm_projector_type", "mlp2x_gelu"),
    (["model.pretrain_mm_mlp_adapter=./data"], "model.pretrain_mm_mlp_adapter", "projector.safetensors"),
    (["train.deepspeed=./zero9.json"], "train.deepspeed", "does not exist"),
    (
        ["train.fsdp=true", f"train.deepspeed={ROOT}/projects/deepspeed/zero2.json"],
        "train.fsdp",
        "train.deepspeed=null",
    ),
    (["train.fsdp=true", "train.bits=4"], "train.fsdp", "ZeRO-2"),
    (["train.warmup_ratio=1.5"], "train.warmup_ratio", "at least 0 and below 1"),
    (["train.per_device_train_batch_size=0"], "train.per_device_train_batch_size", "at least 1"),
    (["train.learning_rate=-1.0"], "train.learning_rate", "above 0"),
    (["train.max_steps=0"], "train.max_steps", "-1"),
    (["train.save_merged=true"], "train.save_merged", "stage 2"),
    (["lora.lora_enable=true"], "lora.lora_enable", "stage 1"),
    (["data.max_error_share=1.5"], "data.max_error_share", "at least 0 and at most 1"),
    (["lora.lora_r=0"], "lora.lora_r", "at least 1"),
    (["nonsense"], "nonsense", "a.b=c"),
]


@pytest.mark.parametrize(("options", "key", "also"), BAD, ids=[options[0] for options, *_ in BAD])
def test_a_mistake_names_the_key(world, options, key, also):
    with pytest.raises(ConfigError) as caught:
        load_run(PRETRAIN, world / "pretrain.yaml", options)
    message = str(caught.value)
    assert key in message
    assert also in message
    assert "\n" not in message


def test_an_expert_that_does_not_exist_is_named(world):
    tower = world / "own_tower.yaml"
    tree = yaml.safe_load((world / "tower" / "tower.yaml").read_text())
    for entry in tree["experts"]:
        entry["pretrained"] = str(world / "tower" / entry["name"])
    tree["clip"]["pretrained"] = str(world / "tower" / "clip")
    tree["experts"][1]["family"] = "dense_vti"
    tower.write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match=r"experts\[1\].*dense_vti.*dense_vit"):
        load_run(PRETRAIN, world / "pretrain.yaml", ["model.tower=./own_tower.yaml"])


def test_paths_are_resolved_from_the_yaml_or_the_working_directory(world, monkeypatch):
    monkeypatch.chdir(world / "data")
    run = load_run(PRETRAIN, world / "pretrain.yaml", ["data.train=[pretrain.json]", "train.output_dir=out"])
    assert run.data.train == [str((world / "data" / "pretrain.json").resolve())]
    assert run.data.image_folder == str((world / "data" / "images").resolve())
    assert run.train.output_dir == str((world / "data").resolve() / "out") or run.train.output_dir.endswith("/out")


def test_a_hub_id_is_left_alone(world):
    run = load_run(PRETRAIN, world / "pretrain.yaml", ["model.llm=lmsys/vicuna-7b-v1.5"])
    assert run.model.llm == "lmsys/vicuna-7b-v1.5"


@pytest.mark.parametrize("launcher_flag", [[], ["--local_rank=0"], ["--local-rank", "0"]])
def test_script_ends_with_code_2_and_one_line_before_torch(world, launcher_flag):
    code = (
        "import sys; from tove_lvlm.recipes.llava import PRETRAIN; from tove_lvlm.train.launch import main;"
        "code = main(PRETRAIN, sys.argv[1:]);"
        "heavy = {'torch', 'transformers', 'deepspeed', 'peft', 'timm'} & set(sys.modules);"
        "sys.exit(9 if heavy else code)"
    )
    arguments = [*launcher_flag, "--cfg-path", str(world / "pretrain.yaml"), "--options", "train.sede=1"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=world,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "train.sede" in done.stderr
    assert "seed" in done.stderr


def test_several_ranks_need_deepspeed_or_fsdp(world, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"train\.deepspeed.*2 ranks.*train\.fsdp=true"):
        load_run(PRETRAIN, world / "pretrain.yaml")
    assert load_run(PRETRAIN, world / "pretrain.yaml", ["train.fsdp=true"]).train.fsdp
