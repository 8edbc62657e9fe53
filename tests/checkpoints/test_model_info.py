"""What is written down about a model's tower, and checked when it is opened."""

import pytest

from tove_lvlm.config import ConfigError


def test_a_tower_that_computes_otherwise_than_in_training_is_refused(built):
    """What was written down by an earlier version too, under the names of then."""
    from tove_lvlm.checkpoints.model_info import check_tower, make_model_info

    model, _ = built
    tower = make_model_info({}, model, "square")["tower"]
    fusion = {"kind", "gate", "transfer_scale", "transfer", "temperature"}
    assert tower.keys() == {*fusion, "select_layer", "expert_resample", "experts"}
    check_tower(model, {"tower": tower}, "here")
    then = {key: value for key, value in tower.items() if key != "gate"}
    check_tower(model, {"tower": then | {"gate_input": "tokens"}}, "here")
    with pytest.raises(ConfigError, match="here: the tower was trained with `gate` constant, .* now says token"):
        check_tower(model, {"tower": then | {"gate_input": "constant"}}, "here")
    with pytest.raises(ConfigError, match=r"trained with `temperature` 0\.5"):
        check_tower(model, {"tower": tower | {"temperature": 0.5}}, "here")


@pytest.mark.parametrize("key", ["transfer", "expert_resample"])
def test_what_was_trained_before_there_was_a_key_has_its_value_of_then(built, key):
    from tove_lvlm.checkpoints.model_info import check_tower, make_model_info

    model, _ = built
    tower = make_model_info({}, model, "pad")["tower"]
    before = {name: value for name, value in tower.items() if name != key}
    then, now = {"transfer": ("separate", "shared_out"), "expert_resample": ("bilinear", "bicubic")}[key]
    with pytest.raises(ConfigError, match=f"here: the tower was trained with `{key}` {then}, .* says {now}"):
        check_tower(model, {"tower": before}, "here")
