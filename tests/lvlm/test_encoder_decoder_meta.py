"""Sizes and FLOPs of the base model on the meta device are those of the real one."""

import pytest
import torch

from helpers import tiny_towers
from helpers.paths import ROOT
from helpers.tiny_base import build_base, save_base
from helpers.tiny_decoders import make_decoder
from tove_lvlm.config import ConfigError
from tove_lvlm.config.encoder_decoder import EncoderDecoderConfig
from tove_lvlm.cost import flop_counter
from tove_lvlm.lvlm.encoder_decoder_meta import TEXT_TOKENS, build_unloaded, encoder_decoder_parts
from tove_lvlm.lvlm.trainable import set_trainable
from tove_lvlm.recipes.report import budget_report


@pytest.fixture(scope="module")
def real(tmp_path_factory, tiny_tower_yaml):
    decoder = make_decoder(tmp_path_factory.mktemp("d") / "decoder")
    return decoder, *build_base(decoder, tiny_tower_yaml)


def test_parts_are_those_of_the_loaded_model(real, tiny_tower_yaml, tmp_path):
    decoder, model, processor = real
    set_trainable(model, "fusion_and_cross_attention")
    blocks = [
        EncoderDecoderConfig(decoder=str(decoder), tower=str(tiny_tower_yaml)),
        EncoderDecoderConfig(pretrained=str(save_base(tmp_path / "saved", model, processor))),
    ]
    for block in blocks:
        unloaded = build_unloaded(block)
        set_trainable(unloaded, "fusion_and_cross_attention")
        assert {p.device.type for p in unloaded.parameters()} == {"meta"}
        rows = encoder_decoder_parts(unloaded)
        assert [row.name for row in rows][-3:] == ["tove_fusion", "enc_to_dec_proj", "decoder"]
        assert sum(row.trainable + row.frozen for row in rows) == sum(p.numel() for p in model.parameters())
        assert sum(row.trainable for row in rows) == sum(p.numel() for p in model.parameters() if p.requires_grad)
        with flop_counter() as counter:
            ids = torch.zeros(1, TEXT_TOKENS, dtype=torch.long)
            model(pixel_values=tiny_towers.pixels(1), decoder_input_ids=ids, use_cache=False)
        assert sum(row.flops for row in rows) == counter.get_total_flops()


@pytest.mark.full
def test_the_paper_size_by_hand():
    """RoBERTa-base: twelve layers of cross-attention with four squares of its width, biases and a norm."""
    report = budget_report(ROOT / "projects" / "tove_base" / "pretrain_base.yaml", [])
    (decoder,) = (row for row in report["parts"] if row["name"] == "decoder")
    assert decoder["trainable"] == 12 * (4 * (768 * 768 + 768) + 2 * 768)
    assert decoder["frozen"] == 124_697_433
    assert report["visual_tokens"] == 196
    clip = budget_report(ROOT / "projects" / "tove_base" / "pretrain_base.yaml", ["model.vision_tower=clip"])
    assert [row["name"] for row in clip["parts"]] == ["clip", "tove_fusion", "decoder"]


def test_a_decoder_that_is_not_here_is_named(tiny_tower_yaml):
    block = EncoderDecoderConfig(decoder="nobody/no-such-decoder", tower=str(tiny_tower_yaml))
    with pytest.raises(ConfigError, match="state its sizes with `model.decoder_architecture`"):
        build_unloaded(block)
