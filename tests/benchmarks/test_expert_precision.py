"""The benchmark of bfloat16: a row for each expert, and an exit code that says whether all are within their bounds."""

import importlib.util
import json

import pytest

from helpers.paths import ROOT
from helpers.pictures import paint
from tove_lvlm.experts.families.dense_vit.model import DenseViT


@pytest.fixture
def main(monkeypatch, tiny_tower_yaml, tmp_path):
    """`main(*options)`: (exit code, the one entry that was written)."""
    spec = importlib.util.spec_from_file_location("expert_precision", ROOT / "benchmarks" / "expert_precision.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*options):
        output = tmp_path / "precision.json"
        given = ["--tower", tiny_tower_yaml, "--output", output, *options]
        monkeypatch.setattr("sys.argv", ["expert_precision.py", *map(str, given)])
        code = module.main()
        ((key, entry),) = json.loads(output.read_text()).items()
        assert key.endswith("bfloat16")
        return code, entry

    return run


def test_a_folder_of_pictures(main, tmp_path):
    for index in range(3):
        paint(tmp_path / "images" / f"{index}.png", index, size=(20, 16))
    code, entry = main("--images", tmp_path / "images", "--num-images", 2)
    assert entry["images"] == 2
    assert list(entry["experts"]) == ["depth", "normals", "shapes", "cnn"]
    assert code == 0
    assert all(0 < row["relative"] < 0.06 for row in entry["experts"].values())
    assert entry["commit"]


def test_beyond_a_bound_is_told(main, monkeypatch, capsys):
    monkeypatch.setattr(DenseViT, "bf16_bound", 1e-6)
    code, entry = main("--num-images", 2)
    assert code == 1
    assert [name for name, row in entry["experts"].items() if not row["within"]] == ["depth", "normals"]
    assert '"within": false' in capsys.readouterr().out
