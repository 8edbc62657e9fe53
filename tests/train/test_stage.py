"""A run writes into nothing that it reads; it is refused before anything is written."""

import json

import pytest

from helpers.tiny_towers import hashes
from tove_lvlm.config import ConfigError
from tove_lvlm.recipes.llava import FINETUNE
from tove_lvlm.train.stage import load_run


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("llm", "is the input"),
        ("llm/deep/out", "lies in the input"),
        ("data", "contains the input"),
        ("data/pretrain.json", "exists and is not a folder"),
        ("tower/clip", "is the input"),
    ],
)
def test_an_output_in_the_way_of_an_input(world, train, capfd, output, message):
    before = {name: hashes(world / name) for name in (".", "llm", "tower", "data")}  # three are links
    assert train("pretrain", f"train.output_dir={world / output}") == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("error: `train.output_dir`: ")
    assert message in line
    assert {name: hashes(world / name) for name in before} == before


def test_stage_2_into_stage_1s_folder(world, train, capfd):
    assert train("pretrain", "train.max_steps=2", "train.save_steps=9") == 0
    out = world / "out-pretrain"
    before = hashes(out)
    adapter = f"model.pretrain_mm_mlp_adapter={out}"
    for output in (out, out / "finetune"):
        assert train("finetune", adapter, f"train.output_dir={output}") == 2
        assert f"the input `{out}`" in capfd.readouterr().err
    assert hashes(out) == before


def test_images_may_lie_above_the_output(world, train):
    """`image_folder: .` is common: names are looked up there, and it is not one whole thing."""
    rows = json.loads((world / "data" / "pretrain.json").read_text())
    path = world / "data" / "images"
    (world / "rows.json").write_text(json.dumps([row | {"image": f"images/{row['image']}"} for row in rows]))
    (world / "images").symlink_to(path.resolve())
    options = ["data.train=[./rows.json]", "data.image_folder=.", "data.allow_symlinks=true", "train.max_steps=1"]
    assert train("pretrain", *options) == 0


def test_a_run_that_goes_on_may_contain_its_input(world, train):
    """As runs of before could; its checkpoint shows that the folder is this run's."""
    adapter = world / "all" / "pretrain"
    assert train("pretrain", f"train.output_dir={adapter}", "train.max_steps=1", "train.save_steps=9") == 0
    options = [f"model.pretrain_mm_mlp_adapter={adapter}", f"train.output_dir={world}/all"]
    with pytest.raises(ConfigError, match="contains the input"):
        load_run(FINETUNE, world / "finetune.yaml", options)
    (world / "all" / "checkpoint-2").mkdir()
    assert load_run(FINETUNE, world / "finetune.yaml", options).train.output_dir == str(world / "all")
