"""What each plan trains, by name."""

import pytest

from helpers.tiny_decoders import make_decoder
from tove_lvlm.config.encoder_decoder import EncoderDecoderConfig
from tove_lvlm.lvlm.encoder_decoder import build_encoder_decoder
from tove_lvlm.lvlm.trainable import set_trainable


@pytest.fixture(scope="module", params=["roberta", "gpt2", "bart"])
def model(request, tmp_path_factory, tiny_tower_yaml):
    decoder = make_decoder(tmp_path_factory.mktemp("decoder"), request.param)
    return build_encoder_decoder(EncoderDecoderConfig(decoder=str(decoder), tower=str(tiny_tower_yaml)))[0]


def learning(model, plan: str) -> set[str]:
    set_trainable(model, plan)
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def of(model, *prefixes: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}


def test_fusion_and_cross_attention(model):
    names = learning(model, "fusion_and_cross_attention")
    in_decoder = {name for name in names if name.startswith("decoder.")}
    assert names - in_decoder == of(model, "encoder.tove_fusion.", "enc_to_dec_proj.")
    assert in_decoder
    assert all("cross" in name or "encoder_attn" in name for name in in_decoder)
    assert not any("cross" in name or "encoder_attn" in name for name in of(model, "decoder.") - in_decoder)


def test_language_model(model):
    assert learning(model, "language_model") == of(model, "decoder.", "enc_to_dec_proj.")


def test_all_but_backbones(model):
    expected = of(model, "decoder.", "enc_to_dec_proj.", "encoder.tove_fusion.")
    assert learning(model, "all_but_backbones") == expected
    assert of(model, "encoder.clip.", "encoder.experts.")
