"""`tove info TOWER.yaml`: parts, costs, weights that are here or not, licences; bad towers in one line."""

import json
import shutil

import pytest
import yaml

from helpers import tiny_towers
from tove_lvlm.tower.cost import tower_sizes
from tove_lvlm.tower.inventory import TimingConfig, tower_inventory


@pytest.fixture
def folder(tiny_tower_yaml, tmp_path):
    """A private copy of the tiny tower's folder."""
    shutil.copytree(tiny_tower_yaml.parent, tmp_path / "tower")
    return tmp_path / "tower"


def rewrite(folder, change):
    path = folder / "tower.yaml"
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))
    return path


def test_parts_are_those_of_the_tower_and_add_up(tiny_tower_yaml, tiny_tower):
    report = json.loads(json.dumps(tower_inventory(tiny_tower_yaml)))
    sizes = tower_sizes(tiny_tower)
    parts = {row["name"]: row for row in report["parts"]}
    assert list(parts) == ["clip", *tiny_towers.EXPERT_NAMES, "tove_fusion"]
    for name, row in parts.items():
        assert (row["parameters"], row["gflops"]) == (sizes[name].parameters, sizes[name].gflops)
    total = report["total"]
    assert total["parameters"] == sizes["tower"].parameters
    assert total["gflops"] == pytest.approx(sizes["tower"].gflops)
    assert report["relative_to_clip"]["parameters"] == sizes["tower"].parameters / sizes["clip"].parameters
    assert (report["visual_tokens"], report["width"]) == (tiny_towers.SIDE**2, tiny_towers.WIDTH)
    assert (parts["cnn"]["channels"], parts["cnn"]["grid"]) == (16, [2, 2])
    file = tiny_tower_yaml.parent / "cnn" / "model.safetensors"
    assert (parts["cnn"]["weights"]["state"], parts["cnn"]["disk_bytes"]) == ("present", file.stat().st_size)
    assert report["missing"] == []
    assert report["commercial"] == "unknown", "no licence is stated"


def test_weights_that_are_missing_random_or_cut_short(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    file = folder / "depth" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])

    def change(tower):
        by_name = {entry["name"]: entry for entry in tower["experts"]}
        by_name["shapes"].update(tiny_towers.EXPERTS["shapes"], pretrained="nobody/has-this", license="cc-by-nc-4.0")
        by_name["cnn"].update(tiny_towers.EXPERTS["cnn"], pretrained="none")
        tower["experts"].append("sobel")

    report = tower_inventory(rewrite(folder, change))
    rows = {row["name"]: row for row in report["parts"]}
    states = {name: row["weights"]["state"] for name, row in rows.items() if row["weights"]}
    assert states == {
        "clip": "present",
        "depth": "partial",
        "normals": "present",
        "shapes": "missing",
        "cnn": "random",
        "sobel": "none needed",
    }
    assert report["missing"] == ["depth", "shapes"]
    assert "nobody/has-this" in rows["shapes"]["weights"]["problem"]
    assert rows["shapes"]["disk_bytes"] == rows["shapes"]["float32_bytes"]
    assert report["commercial"] == rows["shapes"]["commercial"] == "no"


def test_detached_experts_are_listed_and_not_summed(tiny_tower_yaml):
    whole = tower_inventory(tiny_tower_yaml)
    less = tower_inventory(tiny_tower_yaml, ["detached=[cnn]"])
    rows = {row["name"]: row for row in less["parts"]}
    assert rows["cnn"]["detached"]
    assert rows["cnn"]["gflops"] > 0
    assert less["total"]["parameters"] == whole["total"]["parameters"] - rows["cnn"]["parameters"]


def test_times_of_every_part_and_of_the_whole(tiny_tower_yaml):
    report = tower_inventory(
        tiny_tower_yaml, measure=TimingConfig(device="cpu", dtype="float32", batch_size=2, repeats=1)
    )
    assert all(row["ms"] > 0 for row in report["parts"])
    assert report["total"]["ms"] > 0
    assert report["measured"] == {"device": "cpu", "dtype": "float32", "batch_size": 2, "repeats": 1}


def test_the_command_prints_what_is_missing_and_how_to_get_it(folder, tove):
    path = rewrite(folder, lambda tower: tower["clip"].update(pretrained="nobody/clip", architecture=architecture()))
    code, out, _ = tove("info", path, "--options", "fusion.zero_init=false", "detached=[depth]")
    assert code == 0
    words = " ".join(out.split())
    assert "depth (detached)" in words
    assert "clip: " in words
    assert f"tove fetch {path} --to DIR" in words
    assert "16 x 16 pixels in, 16 tokens of width 32 out" in words


def architecture():
    return dict(tiny_towers.CLIP_ARCHITECTURE)


SHAPES = {"name": "more", **tiny_towers.EXPERTS["shapes"], "pretrained": "none"}


@pytest.mark.parametrize(
    ("expert", "message"),
    [
        ({"name": "cnn", **tiny_towers.EXPERTS["cnn"], "pretrained": "none"}, "experts named twice: cnn"),
        ("dinov2_l14_rg", "did you mean `dinov2_l14_reg`"),
        ({**SHAPES, "family": "tim"}, "unknown expert family `tim`; did you mean `timm`"),
        ({**SHAPES, "architecture": "resnet1"}, "timm has no architecture `resnet1`; did you mean"),
        ({**SHAPES, "image_sise": 16}, "unknown key `image_sise`; did you mean `image_size`"),
        ({**SHAPES, "image_size": 18, "model_args": {}}, "`image_size` 18 is not a multiple of the patch size 16"),
        ({**SHAPES, "image_size": 0}, "`image_size` is 0; expected at least 1"),
        ({**SHAPES, "image_size": 8, "model_args": {}}, "`image_size` 8 is not a multiple of the patch size 16"),
        ({**SHAPES, "channels": 24, "grid": [0, 4]}, "`grid` has 0 in it; expected at least 1"),
        ({**SHAPES, "channels": 0, "grid": [4, 4]}, "`channels` is 0; expected at least 1"),
        ({**SHAPES, "std": [0, 1, 1]}, "`std` has 0.0 in it; expected above 0"),
        (
            {
                "name": "d",
                "family": "dense_vit",
                **tiny_towers.DENSE,
                "channels": 1,
                "image_size": 18,
                "pretrained": "none",
            },
            "18",
        ),
    ],
)
def test_bad_experts_are_one_line_before_anything_is_loaded(folder, tove, expert, message):
    path = rewrite(folder, lambda tower: tower["experts"].append(expert))
    code, _, err = tove("info", path)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_a_library_that_is_not_installed_is_named_with_its_extra(folder, tove, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "timm", None)
    expert = {**SHAPES, "name": "another", "image_size": 48, "model_args": {}}
    code, _, err = tove("info", rewrite(folder, lambda tower: tower["experts"].append(expert)))
    assert code == 2
    assert "pip install 'tove-lvlm[experts]'" in err
