"""The parts that llama.cpp's converters read: the same numbers, under the names and fields that they look for."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, CLIPVisionModel

from tove_lvlm.checkpoints.from_config import build_lvlm
from tove_lvlm.checkpoints.gguf_source import commands, export_gguf_source
from tove_lvlm.checkpoints.merged import save_merged
from tove_lvlm.checkpoints.model_info import save_model_info
from tove_lvlm.config import UserError
from tove_lvlm.config.model import ModelConfig
from tove_lvlm.lvlm.lora import collect_merged
from tove_lvlm.storage import load_tensors


@pytest.fixture
def save(llm, tiny_tower_yaml, tmp_path):
    """`save("clip")`: (folder, model) with CLIP or ToVE."""

    def run(vision_tower):
        model, processor = build_lvlm(ModelConfig(llm=str(llm), vision_tower=vision_tower, tower=str(tiny_tower_yaml)))
        save_merged(tmp_path / vision_tower, collect_merged(model), model, processor)
        return tmp_path / vision_tower, model.eval()

    return run


@torch.no_grad()
def test_the_parts_are_the_models(save, tmp_path):
    folder, model = save("clip")
    (folder / "tokenizer.model").write_bytes(b"pieces")
    out = export_gguf_source(folder, tmp_path / "parts")
    clip = CLIPVisionModel.from_pretrained(out / "vision").eval()
    pixels = torch.randn(2, 3, 16, 16)
    assert torch.equal(clip(pixels).last_hidden_state, model.model.vision_tower(pixels).last_hidden_state)
    assert all(name.startswith("vision_model.") for name in load_tensors(out / "vision" / "model.safetensors"))
    fields = json.loads((out / "vision" / "config.json").read_text())
    read = ("projection_dim", "image_size", "patch_size", "hidden_size", "intermediate_size", "num_attention_heads")
    assert {*read, "layer_norm_eps", "num_hidden_layers", "hidden_act"} <= fields.keys(), "none left at its default"
    assert fields["vision_feature_layer"] == model.config.vision_feature_layer
    assert "_name_or_path" not in fields
    projector = torch.load(out / "vision" / "llava.projector", weights_only=True)
    ours = model.model.multi_modal_projector
    expected = {"0.weight": ours.linear_1.weight, "0.bias": ours.linear_1.bias}
    expected |= {"2.weight": ours.linear_2.weight, "2.bias": ours.linear_2.bias}
    assert projector.keys() == {f"model.mm_projector.{name}" for name in expected}
    assert all(torch.equal(projector[f"model.mm_projector.{name}"], tensor) for name, tensor in expected.items())
    words = AutoModelForCausalLM.from_pretrained(out / "language_model").eval()
    ids = torch.tensor([[5, 17, 30, 8]])
    assert torch.equal(words(ids).logits, model(input_ids=ids).logits)
    settings = json.loads((out / "language_model" / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast", "a class of transformers 4"
    assert isinstance(settings["additional_special_tokens"], list)
    assert "extra_special_tokens" not in settings
    assert (out / "language_model" / "tokenizer.model").read_bytes() == b"pieces"
    encoder, language_model = commands(out)
    assert f"-m {out}/vision --clip-model-is-vision --llava-projector {out}/vision/llava.projector -o {out}" in encoder
    assert f"{out}/language_model --outfile {out}/language_model.gguf" in language_model


def test_the_sentencepiece_file_lies_beside_what_merging_wrote(save, llm, tmp_path):
    """`tove merge` names the language model as `../llm`, wherever the command is given."""
    folder, _ = save("clip")
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / "tokenizer.model").write_bytes(b"pieces")
    save_model_info(folder, {"model": {"llm": "../llm", "vision_tower": "../clip"}})
    out = export_gguf_source(folder, tmp_path / "parts")
    assert (out / "language_model" / "tokenizer.model").read_bytes() == b"pieces"


def test_a_tower_with_experts_is_to_be_merged(save, tmp_path):
    folder, _ = save("tove")
    with pytest.raises(UserError, match="has a ToVE tower, of which llama.cpp has no kind; merge .* tove merge"):
        export_gguf_source(folder, tmp_path / "parts")
    assert not (tmp_path / "parts").exists()


def test_the_command_says_what_to_run_next(save, tmp_path, tove):
    folder, _ = save("clip")
    code, out, err = tove("export", folder, "--format", "gguf-source", "--output", tmp_path / "parts", "--json")
    assert code == 0, err
    assert json.loads(out)["commands"] == commands(tmp_path / "parts")
