"""The tower inside unmodified `LlavaForConditionalGeneration`.

See docs/hosts.md, "transformers".
"""

import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from helpers import tiny_towers
from tove_lvlm.storage import WeightsError, load_tensors, save_tensors
from tove_lvlm.tower.recorder import GateRecorder

IMAGE = 63


@pytest.fixture
def llava(tiny_tower):
    torch.manual_seed(0)
    text = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, bos_token_id=1
    )
    config = LlavaConfig(
        vision_config=tiny_tower.config,
        text_config=text,
        image_token_id=IMAGE,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower = tiny_towers.wake(tiny_tower)
    return model.eval()


def batch() -> dict[str, torch.Tensor]:
    ids = torch.tensor([[1] + [IMAGE] * 16 + [5, 6, 7], [1, 9] + [IMAGE] * 16 + [5, 6]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": tiny_towers.pixels()}


def test_forward_uses_the_fused_tokens(llava):
    logits = llava(**batch()).logits
    llava.model.vision_tower.detach(*llava.model.vision_tower.expert_names)
    assert not torch.equal(llava(**batch()).logits, logits)


def test_gradients_reach_gate_and_transfers_and_nothing_frozen(llava):
    llava.train()
    tower = llava.model.vision_tower
    inputs = batch()
    llava(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in tower.tove_fusion.gate.parameters())
    assert all(p.grad is None for n, p in tower.named_parameters() if not n.startswith("tove_fusion."))
    assert not tower.clip.training
    assert not tower.experts.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_save_and_from_pretrained(llava, tmp_path, dtype):
    llava = llava.to(dtype)
    llava.save_pretrained(tmp_path)
    loaded, report = LlavaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    tower = loaded.model.vision_tower
    trainable = {n for n, p in tower.named_parameters() if p.requires_grad}
    assert trainable == {f"tove_fusion.{n}" for n, _ in tower.tove_fusion.named_parameters()}
    # Not the logits in bf16: from_pretrained keeps the LLM's rotary table in float32, `.to()` does not.
    left, right = tower.eval()(tiny_towers.pixels()), llava.model.vision_tower(tiny_towers.pixels())
    assert torch.equal(left.last_hidden_state, right.last_hidden_state)
    assert torch.equal(left.gate_probs, right.gate_probs)
    if dtype == torch.float32:
        assert torch.equal(loaded.eval()(**batch()).logits, llava(**batch()).logits)


def test_a_checkpoint_that_lacks_an_expert_is_refused(llava, tmp_path):
    llava.save_pretrained(tmp_path)
    tensors = load_tensors(tmp_path)
    kept = {name: tensor for name, tensor in tensors.items() if ".experts.depth." not in name}
    assert len(kept) < len(tensors)
    save_tensors(tmp_path / "model.safetensors", kept)
    with pytest.raises(WeightsError, match=r"lacks .* tensors of the tower \(experts.depth.*random"):
        LlavaForConditionalGeneration.from_pretrained(tmp_path)


def test_detached_experts_are_not_in_the_saved_model(llava, tmp_path):
    llava.model.vision_tower.detach("cnn", "depth")
    logits = llava(**batch()).logits
    llava.save_pretrained(tmp_path)
    assert not any(".experts.cnn." in key or ".experts.depth." in key for key in load_tensors(tmp_path))
    loaded, report = LlavaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert torch.equal(loaded.eval()(**batch()).logits, logits)


def test_a_new_model_from_the_config_starts_at_clip(llava):
    fresh = LlavaForConditionalGeneration(llava.config).eval()
    tower = fresh.model.vision_tower
    assert not tower.tove_fusion.shared_out.weight.any()
    output = tower(tiny_towers.pixels())
    assert torch.equal(*output.hidden_states)


def test_generate_runs_the_tower_once(llava):
    calls = []
    llava.model.vision_tower.register_forward_pre_hook(lambda *_: calls.append(1))
    inputs = {name: tensor[:1] for name, tensor in batch().items()}
    ids = llava.generate(**inputs, max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert ids.shape[1] == 24
    assert len(calls) == 1


def test_recorder_finds_the_tower_and_keeps_the_graph(llava):
    recorder = GateRecorder(llava)
    assert recorder.last is None
    llava.train()
    llava(**batch())
    assert recorder.last.gate_probs.shape == (2, 16, 4)
    recorder.last.balance_loss.backward()
    gate = llava.model.vision_tower.tove_fusion.gate
    assert gate.fc2.weight.grad.abs().sum() > 0
    recorder.clear()
    assert recorder.last is None
    llava(**batch())
    assert recorder.last is not None
    recorder.remove()
    llava(**batch())
    assert recorder.last is None


def test_recorder_needs_a_tower():
    from transformers import CLIPVisionModel

    clip = CLIPVisionModel(CLIPVisionConfig(**tiny_towers.CLIP_ARCHITECTURE))
    with pytest.raises(ValueError, match="no ToVEVisionModel"):
        GateRecorder(clip)
