"""Assembly of the LLaVA model from language model, tower and projector."""

import pytest
import torch

from helpers import tiny_towers
from helpers.tiny_lvlm import make_llm
from tove_lvlm.checkpoints.from_config import build_lvlm
from tove_lvlm.config import ConfigError
from tove_lvlm.config.model import ModelConfig
from tove_lvlm.lvlm.build import IMAGE_TOKEN, load_vision

IDS = torch.tensor([[1, 300, 310, 320, 330]])


def image_ids(model) -> torch.Tensor:
    config = model.config
    return torch.tensor([[1, *[config.image_token_id] * config.image_seq_length, 300, 310]])


def test_text_goes_through_as_through_the_language_model_alone(llm, built):
    from transformers import AutoModelForCausalLM

    model, _ = built
    alone = AutoModelForCausalLM.from_pretrained(llm).eval()
    with torch.no_grad():
        ours, theirs = model(input_ids=IDS).logits, alone(input_ids=IDS).logits
    assert torch.equal(ours[..., : theirs.shape[-1]], theirs)


def test_all_is_frozen_and_nothing_is_left_on_meta(built):
    model, _ = built
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(t.is_meta for t in [*model.parameters(), *model.buffers()])


def test_image_token_gets_the_mean_row_and_is_never_the_best_guess(llm, built):
    model, processor = built
    token = processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    rows = model.get_output_embeddings().weight
    assert token == model.config.image_token_id == processor.image_token_id == len(rows) - 1
    torch.testing.assert_close(rows[token], rows[:token].mean(0))
    torch.testing.assert_close(
        model.get_input_embeddings().weight[token], model.get_input_embeddings().weight[:-1].mean(0)
    )
    logits = torch.randn(200, 32) @ rows.T
    assert (logits.argmax(-1) != token).all()


def test_projector_starts_as_torch_starts_a_linear_layer(built):
    projector = built[0].model.multi_modal_projector
    bound = projector.linear_1.in_features**-0.5
    weight = projector.linear_1.weight
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


def test_clip_features_are_layer_minus_two_without_the_class_token(llm, tiny_tower_yaml):
    torch.manual_seed(0)
    config = ModelConfig(llm=str(llm), vision_tower="clip", tower=str(tiny_tower_yaml))
    model, processor = build_lvlm(config)
    assert type(model.model.vision_tower).__name__ == "CLIPVisionModel"
    pixels = tiny_towers.pixels()
    with torch.no_grad():
        states = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        expected = model.model.multi_modal_projector(states[-2][:, 1:])
        got = torch.stack(list(model.get_image_features(pixels).pooler_output))
    assert torch.equal(got, expected)
    assert model.config.image_seq_length == tiny_towers.SIDE**2
    out = processor(images=[to_image()], text=f"{IMAGE_TOKEN} hello", return_tensors="pt")
    assert (out["input_ids"] == model.config.image_token_id).sum() == tiny_towers.SIDE**2


def to_image():
    from PIL import Image

    return Image.new("RGB", (40, 30), (200, 10, 10))


def test_both_variants_start_from_the_same_answer(llm, tiny_tower_yaml):
    """Zero start: before training, ToVE's logits are CLIP-only's bit for bit, given the same projector."""
    logits = []
    for variant in ("clip", "tove"):
        torch.manual_seed(3)
        model, _ = build_lvlm(ModelConfig(llm=str(llm), vision_tower=variant, tower=str(tiny_tower_yaml)))
        with torch.no_grad():
            torch.manual_seed(4)
            for parameter in model.model.multi_modal_projector.parameters():
                parameter.normal_()
            ids = image_ids(model)
            logits.append(model.eval()(input_ids=ids, pixel_values=tiny_towers.pixels(1)).logits)
    assert torch.equal(*logits)


def test_visual_tokens_reach_the_answer(built):
    model, _ = built
    ids = image_ids(model)
    with torch.no_grad():
        a, b = (model(input_ids=ids, pixel_values=tiny_towers.pixels(1, seed)).logits[:, -1] for seed in (0, 1))
    assert (a - b).abs().max() > 1e-3


def test_processor_counts_as_many_placeholders_as_the_tower_gives(built):
    model, processor = built
    out = processor(images=[to_image()], text=f"{IMAGE_TOKEN} hello", return_tensors="pt")
    assert (out["input_ids"] == model.config.image_token_id).sum() == tiny_towers.SIDE**2
    with torch.no_grad():
        assert model(**out).logits.isfinite().all()


def test_tower_may_be_a_folder(tmp_path, tiny_tower_yaml, llm):
    from tove_lvlm import build_tower

    tower = build_tower(tiny_tower_yaml)
    tiny_towers.wake(tower).save_pretrained(tmp_path / "tower")
    vision = load_vision(ModelConfig(llm=str(llm), vision_tower=str(tmp_path / "tower")))
    assert (vision.feature_layer, vision.select_strategy) == (-1, "full")
    with torch.no_grad():
        pixels = tiny_towers.pixels()
        assert torch.equal(vision.tower.eval()(pixels).last_hidden_state, tower.eval()(pixels).last_hidden_state)
    clip = load_vision(ModelConfig(llm=str(llm), vision_tower=str(tiny_tower_yaml.parent / "clip")))
    assert (clip.feature_layer, clip.select_strategy, clip.extra_tokens) == (-2, "default", 1)


def test_tower_folder_of_another_kind_is_refused(llm):
    with pytest.raises(ConfigError, match="neither a ToVE tower nor a CLIP"):
        load_vision(ModelConfig(llm=str(llm), vision_tower=str(llm)))


def test_tied_embeddings_stay_tied(tmp_path, tiny_tower_yaml):
    llm = make_llm(tmp_path / "llm", tie=True)
    model, _ = build_lvlm(ModelConfig(llm=str(llm), tower=str(tiny_tower_yaml)))
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.config.tie_word_embeddings


def test_bfloat16_leaks_no_float32(llm, tiny_tower_yaml):
    model, _ = build_lvlm(ModelConfig(llm=str(llm), tower=str(tiny_tower_yaml)), dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        assert model(input_ids=image_ids(model), pixel_values=tiny_towers.pixels(1)).logits.dtype == torch.bfloat16
