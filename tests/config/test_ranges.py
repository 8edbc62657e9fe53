"""Every number of every YAML has its range: whatever is out of it is one line that names the key, before anything is
loaded. The schemas are walked, so that a new field cannot be forgotten.
"""

import dataclasses
import math
import types
import typing

import pytest

from tove_lvlm.config import ConfigError, encoder_decoder, llava, merge, parse
from tove_lvlm.config.model import LoraConfig
from tove_lvlm.config.parsing import range_of
from tove_lvlm.config.ranges import LARGEST_INT, Range, number, unfit
from tove_lvlm.config.tower import ClipConfig, FusionConfig
from tove_lvlm.experts.schema import EXPERT_CONFIGS
from tove_lvlm.hosts.lavis.model_block import ModelBlock

EXPERT = {"name": "one"}
VIT = {"width": 24, "depth": 1, "heads": 2, "patch_size": 8, "channels": 1, "image_size": 64}
DEPTH = {"depth": {"family": "dense_vit", **VIT}, "image_size": 64}
# Of every schema what it cannot do without; a family that is missing here fails `test_every_schema_is_walked`.
VALID = {
    llava.TrainConfig: {"output_dir": "out"},
    llava.DataConfig: {"train": ["a.json"]},
    llava.ModelConfig: {"llm": "llm", "tower": "tower.yaml"},
    LoraConfig: {},
    encoder_decoder.TrainConfig: {"output_dir": "out"},
    encoder_decoder.DataConfig: {"mix": [{"files": ["a.json"]}]},
    encoder_decoder.SourceConfig: {"files": ["a.json"]},
    encoder_decoder.EncoderDecoderConfig: {"pretrained": "model"},
    merge.MergeConfig: {},
    merge.MergeDataConfig: {"images": ["images"]},
    merge.LoopConfig: {"output_dir": "out"},
    FusionConfig: {},
    ClipConfig: {"pretrained": "none"},
    ModelBlock: {"vit_model": "tove:tower.yaml", "decoder": "decoder"},
}
FAMILIES = {
    "dense_vit": VIT,
    "depth": {"architecture": {"model_type": "dpt"}},
    "detector": {"classes": 3},
    "dexined": {},
    "edge_filter": {"filter": "canny"},
    "hed": {},
    "normal_bae": {},
    "normals_from_depth": DEPTH,
    "onnx": {},
    "open_clip": {"architecture": "ViT-B-32"},
    "text_map": {},
    "tflite": {},
    "timm": {"architecture": "resnet18"},
    "transformers": {"architecture": {"model_type": "clip_vision_model"}},
}
VALID |= {EXPERT_CONFIGS.get(name): {**EXPERT, "family": name, **fields} for name, fields in FAMILIES.items()}
SHIPPED = "tove_lvlm.experts.families"


def kinds(hint) -> tuple[type, bool]:
    """(int, float or None, whether it is a list) of an annotation."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    for option in options:
        if typing.get_origin(option) is list and typing.get_args(option)[0] in (int, float):
            return typing.get_args(option)[0], True
        if option in (int, float):
            return option, False
    return type(None), False


def numbers():
    for schema in VALID:
        hints = typing.get_type_hints(schema)
        for field in dataclasses.fields(schema):
            kind, is_list = kinds(hints[field.name])
            if kind in (int, float):
                yield pytest.param(schema, field.name, kind, is_list, id=f"{schema.__name__}.{field.name}")


def outside(allowed: Range, kind: type):
    """Numbers of a kind that are out of a range; of a float's also those that are none."""
    step = 1 if kind is int else 1e-6
    bounds = [(allowed.low, -step), (allowed.above, 0), (allowed.high, step), (allowed.below, 0)]
    values = [kind(bound + by) for bound, by in bounds if bound is not None]
    values += [10**30, -(10**30)] if kind is int else [math.nan, math.inf, -math.inf, 10**400, -(10**400)]
    return [value for value in values if value not in allowed.also]


def test_every_schema_is_walked():
    of_families = {name for name in EXPERT_CONFIGS.names() if EXPERT_CONFIGS.get(name).__module__.startswith(SHIPPED)}
    assert of_families == set(FAMILIES)
    found = set()
    for run in (llava.RunConfig, encoder_decoder.RunConfig, merge.MergeRunConfig):
        found |= {hint for hint in typing.get_type_hints(run).values() if dataclasses.is_dataclass(hint)}
    assert found - VALID.keys() <= {merge.MergeModelConfig}  # which has texts only
    assert len(list(numbers())) > 100


@pytest.mark.parametrize("schema", list(VALID), ids=lambda schema: schema.__name__)
def test_what_the_walk_starts_from_is_valid(schema):
    parse(schema, VALID[schema])


@pytest.mark.parametrize(("schema", "name", "kind", "is_list"), list(numbers()))
def test_a_number_has_a_range_and_what_is_out_of_it_is_named(schema, name, kind, is_list):
    allowed = range_of(schema, name)
    assert allowed is not None, "state it: field(default=..., metadata=number(low=...))"
    for value in outside(allowed, kind):
        with pytest.raises(ConfigError) as error:
            parse(schema, VALID[schema] | {name: [kind(1), value, kind(1)] if is_list else value})
        message = str(error.value)
        assert f"`{name}`" in message
        assert "expected" in message
        assert len(message) < 200
        assert "\n" not in message
    for value in (True, "many", {"a": 1}):
        with pytest.raises(ConfigError, match=f"`{name}"):
            parse(schema, VALID[schema] | {name: [value] * 3 if is_list else value})


@pytest.mark.parametrize(
    ("options", "value", "expected"),
    [
        ({"low": 1}, 0, "at least 1"),
        ({"low": 0, "below": 1}, 1.0, "at least 0 and below 1"),
        ({"above": 0}, 0.0, "above 0"),
        ({"above": 0}, math.inf, "a finite number, above 0"),
        ({"low": 1, "also": (-1,)}, -2, "-1 or at least 1"),
        ({}, math.nan, "a finite number"),
        ({"low": 1}, LARGEST_INT + 1, f"at most {LARGEST_INT}"),
    ],
)
def test_ranges_say_what_is_expected(options, value, expected):
    assert unfit(value, number(**options)["range"]) == expected


def test_what_is_in_the_range_passes():
    allowed = number(low=1, high=2**32 - 1, also=(-1,))["range"]
    assert [unfit(value, allowed) for value in (1, 2**32 - 1, -1)] == [None] * 3
    assert number(low=1, yaml=False)["yaml"] is False
