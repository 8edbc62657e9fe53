"""YAMLs of every training stage and of towers, through the scripts' own entry point up to the start of training.

A training script's main function is called as it is; only `train.run.run_stage` is replaced, which would train for
seconds. A tower's YAML goes through `read_tower_yaml`, which every command calls first; `tove info` costs half a second
and is asked about few of them.
"""

import contextlib
import dataclasses
import json
import logging
import math
import os
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from hypothesis import strategies as st

from helpers import base_runs, llava_runs
from tove_lvlm.config import ConfigError, save_yaml
from tove_lvlm.config.parsing import range_of
from tove_lvlm.recipes.encoder_decoder import FINETUNE as BASE_FINETUNE
from tove_lvlm.recipes.encoder_decoder import PRETRAIN as BASE_PRETRAIN
from tove_lvlm.recipes.llava import FINETUNE, PRETRAIN
from tove_lvlm.recipes.merge import MERGE
from tove_lvlm.tower.from_yaml import read_tower_yaml
from tove_lvlm.train import launch
from tove_lvlm.train.stage import load_run

from ..mutate import byte_edits, edited, edited_bytes, json_edits, rarely
from ..property import Target, answered, captured, tove
from ..worlds import base_world, checkpoints, llava_world

STAGES = {stage.name: stage for stage in (PRETRAIN, FINETUNE, BASE_PRETRAIN, BASE_FINETUNE, MERGE)}
TOWER = "tower"
_VALUES = (
    "{0..3}",
    "{00000..99999999}",
    "{a,b}{c,d}.json",
    "${oc.env:HOME}",
    "${oc.env:NOT_THERE}",
    "${model.llm}",
    "${model}",
    "${train.seed}",
    "${",
    "???",
    "shipped:",
    "shipped:miniature/clip",
    "package:",
    "package:timm/nothing.pth",
    "owner/name",
    "./data/finetune.json",
    "./tower/tower.yaml",
    "./llm",
    "clip",
    "tove",
    "timm/resnet18",
    "dinov2_l14_reg",
    {"family": "edge_filter", "filter": "canny", "name": "edges"},
    {"deepspeed": "./data/finetune.json"},
    {"mm_projector_type": "mlp2x_gelu"},
    {"lora_enable": True},
    {"max_broken": 0.5},
    {"gate_input": "tokens"},
)
_SNIPPETS = (
    b"&a [1]",
    b"*a",
    b"<<: {seed: 3}\n",
    b"!!python/object:os.system ",
    b"---\n",
    b"\t",
    b"? [a, b]\n: c\n",
    b"!!binary aGVsbG8=",
    b"2001-01-01",
    b"!!set {a, b}",
    b"0x1F",
    b"1e400",
    b".nan",
    b"-.inf",
    b"1_000",
    b"12:30:45",
    b"!!float 1",
    b"~",
    b"{" * 400,
    b"&a [*a]",
)
_OPTIONS = ("train.seed=7", "train.seed=", "a=b", "model.llm={", "data=[1]", "x", "model=???", "=", "train.seed=.nan")
CASES = st.fixed_dictionaries(
    {
        "kind": st.sampled_from([*STAGES, TOWER]),
        "edits": json_edits(*_VALUES),
        "bytes": rarely(byte_edits(2, _SNIPPETS), []),
        "options": rarely(st.lists(st.sampled_from(_OPTIONS), max_size=2), []),
        "info": st.integers(0, 19).map(lambda number: number == 0),
    }
)


def _block(kind: str) -> tuple[Path, dict[str, Any]]:
    """(folder that the YAML's paths are relative to, what it holds)."""
    world = base_world() if STAGES.get(kind) in (BASE_PRETRAIN, BASE_FINETUNE) else llava_world()
    if kind == TOWER:
        return world / "tower", yaml.safe_load((world / "tower" / "tower.yaml").read_text(encoding="utf-8"))
    if STAGES[kind] is MERGE:
        train = {"output_dir": "./out-merge", "learning_rate": 0.01, "max_steps": 6, "seed": 1}
        block = {"model": {"checkpoint": str(checkpoints()["tower"])}, "data": {"images": ["./data/images"]}}
        return world, {**block, "train": train, "merge": {"loss": "both", "normalize_images": 8}}
    runs = base_runs if world is base_world() else llava_runs
    return world, runs.run_block(world, kind)


def _write(case: dict[str, Any], folder: Path) -> None:
    world, block = _block(case["kind"])
    text = yaml.safe_dump(edited(block, case["edits"]), sort_keys=False, allow_unicode=True)
    content = edited_bytes(text.encode("utf-8", "surrogatepass"), case["bytes"])
    (folder / "case.yaml").write_bytes(content)
    for entry in world.iterdir():  # what the YAML names relative to itself
        if not entry.name.endswith(".yaml"):
            (folder / entry.name).symlink_to(entry)


@contextlib.contextmanager
def _kept():
    """Environment, working folder and logging as they were; training itself is left out."""
    runs: list[Any] = []
    handlers, level = logging.root.handlers[:], logging.root.level
    with mock.patch.dict(os.environ, OMP_NUM_THREADS="1"):
        try:
            with mock.patch("tove_lvlm.train.run.run_stage", side_effect=lambda stage, run: runs.append(run) or 0):
                yield runs
        finally:
            logging.root.handlers[:], logging.root.level = handlers, level


def _act(case: dict[str, Any], inputs: Path, output: Path) -> Any:
    path = inputs / "case.yaml"
    options = ["--options", *case["options"]] if case["options"] else []
    if case["kind"] == TOWER:
        if case["info"]:
            report = tove("info", path, "--json", *options)
            json.loads(report, parse_constant=_no_constant)
        return read_tower_yaml(path, case["options"])
    with _kept() as runs:
        stage = STAGES[case["kind"]]
        answered(*captured(lambda: launch.main(stage, ["--cfg-path", str(path), *options]), ["script"]))
    assert len(runs) == 1, "the script ended with 0 and has not trained"
    return runs[0]


def _no_constant(name: str) -> None:
    raise AssertionError(f"the report has {name} in it")


def _accepted(case: dict[str, Any], inputs: Path, output: Path, config: Any) -> None:
    _check_numbers(config)
    if case["kind"] == TOWER:
        assert read_tower_yaml(inputs / "case.yaml", case["options"]) == config
        return
    if not case["bytes"] and not case["options"]:
        _check_values(edited(_block(case["kind"])[1], case["edits"]), config)
    output.mkdir()
    save_yaml(config, output / "run.yaml")
    try:
        again = load_run(STAGES[case["kind"]], output / "run.yaml")
    except ConfigError as error:
        raise AssertionError(f"the run's own YAML is refused: {error}") from error
    assert again == config, "the run's own YAML is another run"


def _check_numbers(config: Any) -> None:
    """Every number of a tree of dataclasses is finite and in its field's range."""
    for field in dataclasses.fields(config):
        value, allowed = getattr(config, field.name), range_of(type(config), field.name)
        for entry in value if isinstance(value, list | tuple) else [value]:
            if dataclasses.is_dataclass(entry):
                _check_numbers(entry)
            elif isinstance(entry, int | float) and not isinstance(entry, bool):
                assert math.isfinite(entry), f"{field.name} is {entry}"
                if allowed is not None and entry not in allowed.also:
                    assert allowed.low is None or entry >= allowed.low, f"{field.name} is {entry}"
                    assert allowed.high is None or entry <= allowed.high, f"{field.name} is {entry}"
                    assert allowed.above is None or entry > allowed.above, f"{field.name} is {entry}"
                    assert allowed.below is None or entry < allowed.below, f"{field.name} is {entry}"


def _check_values(written: dict[str, Any], config: Any) -> None:
    """Numbers and switches of the YAML are in the configuration as they were written."""
    for name, value in written.items():
        held = getattr(config, str(name), None)
        if isinstance(value, dict) and dataclasses.is_dataclass(held):
            _check_values(value, held)
        elif isinstance(value, bool | int | float) and hasattr(config, str(name)):
            assert held == value, f"{name} is {held}, and the YAML says {value}"


TARGET = Target(
    name="configs",
    cases=CASES,
    write=_write,
    act=_act,
    accepted=_accepted,
    shared=lambda: [llava_world(), base_world()],
)
