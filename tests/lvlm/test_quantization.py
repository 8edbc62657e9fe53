"""A language model in 4 or 8 bits: what is quantised and what is not, training on it, and what comes of it."""

import json
import shutil

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from helpers.llava_runs import run, shared_world, train, world
from helpers.paths import ROOT
from helpers.tiny_lvlm import make_llm
from helpers.tiny_towers import make_tower_yaml
from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.checkpoints.from_config import build_lvlm
from tove_lvlm.checkpoints.merged import export_merged
from tove_lvlm.config import ConfigError, UserError
from tove_lvlm.config.model import LoraConfig, ModelConfig
from tove_lvlm.inference.chat import Chat
from tove_lvlm.lvlm.budget import memory
from tove_lvlm.lvlm.lora import add_lora
from tove_lvlm.lvlm.meta import build_unloaded
from tove_lvlm.lvlm.quantization import check_bits, size_quantized

bitsandbytes = pytest.importorskip("bitsandbytes")
__all__ = ["shared_world", "train", "world"]
KINDS = {4: bitsandbytes.nn.Linear4bit, 8: bitsandbytes.nn.Linear8bitLt}


@pytest.fixture(scope="module")
def wide_llm(tmp_path_factory):
    """The tiny language model at a width that real ones have multiples of: bitsandbytes rounds 64 weights together."""
    folder = make_llm(tmp_path_factory.mktemp("wide"))
    sizes = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 64}
    config = AutoConfig.from_pretrained(folder, **sizes)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def build(llm, tower, bits):
    return build_lvlm(ModelConfig(llm=str(llm), vision_tower="tove", tower=str(tower)), bits=bits)


@torch.no_grad()
@pytest.mark.parametrize("bits", KINDS)
def test_the_language_models_linear_layers_alone_are_quantised(wide_llm, tiny_tower_yaml, bits):
    whole, _ = build(wide_llm, tiny_tower_yaml, 16)
    model, _ = build(wide_llm, tiny_tower_yaml, bits)
    quantized = {name for name, module in model.named_modules() if isinstance(module, KINDS[bits])}
    linear = {name for name, module in whole.model.language_model.named_modules() if isinstance(module, nn.Linear)}
    assert quantized == {f"model.language_model.{name}" for name in linear}
    for name in quantized:
        layers = [part.eval().get_submodule(name) for part in (model, whole)]
        x_BC = torch.randn(6, layers[1].in_features)
        ours, exact = (layer(x_BC) for layer in layers)
        assert 0 < (ours - exact).norm() / exact.norm() < (0.15 if bits == 4 else 0.03), "rounded"
    for part in ("vision_tower", "multi_modal_projector"):
        names = [name for name, _ in model.named_parameters() if f".{part}." in name]
        assert names
        assert {model.get_parameter(name).dtype for name in names} == {torch.float32}


@pytest.mark.parametrize("bits", KINDS)
def test_lora_goes_over_quantised_layers(llm, tiny_tower_yaml, bits):
    model, _ = build(llm, tiny_tower_yaml, bits)
    wrapped = add_lora(model, LoraConfig(lora_enable=True, lora_r=4))
    layer = wrapped.base_model.model.model.language_model.layers[0].mlp.down_proj
    assert type(layer).__module__ == "peft.tuners.lora.bnb"
    assert isinstance(layer.base_layer, KINDS[bits])


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_stage_two_in_4_bits_gives_an_adapter_for_the_whole_model(world, wide_llm, train, tmp_path):
    """It learns, goes on from its checkpoint to the same losses, loads over whole weights and is merged over them."""
    one = tmp_path / "one"
    options = ["train.bits=4", "train.save_merged=false", "lora.lora_dropout=0", f"train.output_dir={one}"]
    options += [f"model.llm={wide_llm}", "train.max_steps=20", "train.save_steps=10", "train.save_total_limit=5"]
    assert train("finetune", *options) == 0
    found = losses(one)
    assert sum(found[-4:]) < 0.9 * sum(found[:4])
    shutil.rmtree(one / "checkpoint-20")
    shutil.rmtree(one / "adapter")
    assert train("finetune", *options) == 0
    assert losses(one)[-10:] == pytest.approx(found[10:], abs=1e-4)
    with pytest.raises(UserError, match="holds no adapter"):
        export_merged(world / "data", tmp_path / "none")
    folder = export_merged(one, tmp_path / "merged")
    adapter, merged = open_checkpoint(one), open_checkpoint(folder)
    ids_BT = torch.tensor([[1, 300, 310, 5, 17]])
    with torch.no_grad():
        logits = [loaded.model.float()(input_ids=ids_BT).logits for loaded in (adapter, merged)]
    torch.testing.assert_close(*logits, atol=1e-5, rtol=1e-4)
    assert not any(isinstance(module, KINDS[4]) for module in merged.model.modules())
    assert Chat.load(folder, device="cpu").ask(None, "what is red ?", max_new_tokens=3) is not None


@pytest.mark.full
def test_two_ranks_under_zero2_learn_what_one_rank_does(world, wide_llm):
    tower = make_tower_yaml(world / "still", experts=["depth", "shapes"], expert_dropout=0.0)
    options = ["train.bits=4", "train.save_merged=false", "lora.lora_dropout=0", "train.max_steps=6"]
    options += [f"model.llm={wide_llm}", f"model.tower={tower}"]
    zero2 = f"train.deepspeed={ROOT}/projects/deepspeed/zero2.json"
    for name, more, ranks in (("two", zero2, 2), ("one", "train.per_device_train_batch_size=4", None)):
        code, output = run(world, "finetune", [*options, more, f"train.output_dir={world / name}"], ranks)
        assert code == 0, output[-3000:]
    assert losses(world / "two") == pytest.approx(losses(world / "one"), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["train.bits=4"], "`train.save_merged` is true and `train.bits` 4: a quantised model is not merged; write"),
        (["train.bits=5"], "`train.bits` is 5 (int); valid: 4 | 8 | 16"),
        (["train.bits=8", "train.save_merged=false", "lora.lora_enable=false"], "but without LoRA the whole language"),
    ],
)
def test_what_cannot_be_is_said_before_training(train, capfd, options, message):
    assert train("finetune", *options) != 0
    assert message in capfd.readouterr().err


def test_zero3_and_whole_folders_are_refused(llm, tmp_path):
    check_bits(4, zero3=False)
    check_bits(16, zero3=True)
    with pytest.raises(ConfigError, match="ZeRO-3 cannot partition quantised weights; take ZeRO-2"):
        check_bits(4, zero3=True)
    with pytest.raises(ConfigError, match="`model.llm` a whole LLaVA model; parts alone are quantised"):
        build_lvlm(ModelConfig(llm=str(tmp_path), vision_tower=str(tmp_path)), bits=4)


def test_tove_info_counts_the_bytes(tiny_tower_yaml):
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
    block = ModelConfig(llm="none", llm_architecture=sizes, tower=str(tiny_tower_yaml))
    bytes_of = {}
    for bits in (16, 8, 4):
        model = add_lora(build_unloaded(block), LoraConfig(lora_enable=True, lora_r=4))
        size_quantized(model, bits)
        zero2, *others = memory(model, [8])
        assert (zero2.setting, len(others)) == ("zero2", 2 if bits == 16 else 0)
        bytes_of[bits] = zero2.gpu_bytes
    linear = 2 * (4 * 256**2 + 3 * 256 * 512)
    assert bytes_of[16] - bytes_of[8] == pytest.approx(linear, abs=2)
    assert bytes_of[16] - bytes_of[4] == pytest.approx(linear * (16 - 4.127) / 8, abs=2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("bits", KINDS)
def test_a_quantised_model_moves_to_the_gpu_and_learns(tmp_path, tiny_tower_yaml, bits):
    llm = make_llm(tmp_path / "llm")
    model, _ = build(llm, tiny_tower_yaml, bits)
    wrapped = add_lora(model, LoraConfig(lora_enable=True, lora_r=4)).cuda()
    ids_BT = torch.tensor([[1, 300, 310, 5, 17]], device="cuda")
    optimizer = torch.optim.AdamW([p for p in wrapped.parameters() if p.requires_grad], lr=0.01)
    seen = []
    for _ in range(20):
        loss = wrapped(input_ids=ids_BT, labels=ids_BT).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert seen[-1] < 0.7 * seen[0]
