"""What is written down about a model's tower, and checked when it is opened."""

import pytest

from tove_lvlm.config import ConfigError


def test_a_tower_that_computes_otherwise_than_in_training_is_refused(built):
    """What was written down by an earlier version too, under the names of then."""
    from tove_lvlm.checkpoints.model_info import check_tower, make_model_info

    model, _ = built
    tower = make_model_info({}, model, "square")["tower"]
    assert tower.keys() == {"kind", "gate", "transfer_scale", "transfer", "temperature", "select_layer", "experts"}
    check_tower(model, {"tower": tower}, "here")
    then = {key: value for key, value in tower.items() if key != "gate"}
    check_tower(model, {"tower": then | {"gate_input": "tokens"}}, "here")
    with pytest.raises(ConfigError, match="here: the tower was trained with `gate` constant, .* now says token"):
        check_tower(model, {"tower": then | {"gate_input": "constant"}}, "here")
    with pytest.raises(ConfigError, match=r"trained with `temperature` 0\.5"):
        check_tower(model, {"tower": tower | {"temperature": 0.5}}, "here")


def test_what_was_trained_before_transfers_could_share_a_layer_shared_none(built):
    from tove_lvlm.checkpoints.model_info import check_tower, make_model_info

    model, _ = built
    tower = make_model_info({}, model, "pad")["tower"]
    before = {key: value for key, value in tower.items() if key != "transfer"}
    check_tower(model, {"tower": before}, "here")
    model.config.vision_config.fusion["transfer"] = "shared_out"
    try:
        with pytest.raises(
            ConfigError, match="here: the tower was trained with `transfer` separate, .* says shared_out"
        ):
            check_tower(model, {"tower": before}, "here")
    finally:
        model.config.vision_config.fusion["transfer"] = "separate"
