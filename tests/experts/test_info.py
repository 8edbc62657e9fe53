"""What an expert declares, from a name or an entry; the shipped figures are those that are counted."""

import importlib.metadata
import json
import subprocess
import sys

import pytest

from tove_lvlm.config import ConfigError, UserError
from tove_lvlm.config.sources import WEIGHT_KEYS
from tove_lvlm.experts import info
from tove_lvlm.experts.catalogue import catalogue
from tove_lvlm.experts.info import expert_info, find_experts, measure_network
from tove_lvlm.experts.libraries import code_license, find_library, install_hint
from tove_lvlm.experts.schema import parse_expert

MOBILE = {"expert": "timm/test_vit.r160_in1k", "name": "small"}
"""timm's model for tests."""


def test_an_entry_of_a_tower_declares_everything(monkeypatch):
    monkeypatch.setattr(info, "_shipped", dict)
    own = expert_info({**MOBILE, "image_size": 32, "license": "cc-by-nc-4.0", "revision": "abc"})
    row = json.loads(json.dumps(own.as_dict()))
    assert (row["name"], row["kind"], row["library"]) == ("small", "embedding", "timm")
    assert row["architecture"] == "test_vit.r160_in1k"
    assert (row["channels"], row["grid"], row["image_size"]) == (64, [2, 2], 32)
    assert (row["pretrained"], row["revision"]) == ("timm/test_vit.r160_in1k", "abc")
    assert (row["license"], row["code_license"], row["commercial"]) == ("cc-by-nc-4.0", "apache-2.0", "no")
    # timm's test_vit: width 64, 6 blocks, MLP ratio 3; 16 x 16 patches, here 2 x 2 of them and a class token.
    block = 4 * 64**2 + 4 * 64 + 2 * 3 * 64**2 + 4 * 64 + 4 * 64
    positions = 6 * 64  # 2 x 2, the class token and its position
    assert row["parameters"] == pytest.approx(6 * block + (3 * 256 + 1) * 64 + positions + 2 * 64, rel=0.01)
    assert row["bf16_bytes"] == 2 * row["parameters"]
    assert row["float32_bytes"] == 4 * row["parameters"]
    tokens = 5
    macs = tokens * 6 * (4 * 64**2 + 2 * 3 * 64**2) + 6 * 2 * tokens**2 * 64 + 4 * 3 * 256 * 64
    assert row["gflops"] == pytest.approx(2 * macs / 1e9, rel=0.01)


def test_weights_that_are_not_used_forbid_nothing():
    assert expert_info({**MOBILE, "pretrained": "none", "license": "cc-by-nc-4.0"}).commercial == "yes"
    assert expert_info({**MOBILE, "license": None}).commercial == "unknown"


def test_shipped_figures_are_those_that_are_counted():
    """Of the smallest one; scripts/count_experts.py makes them."""
    rows = json.loads(info.SIZES_FILE.read_text(encoding="utf-8"))
    smallest = min((name for name in rows if name in catalogue()), key=lambda name: rows[name]["parameters"])
    own = expert_info(smallest)
    if find_library(own.network.library) and not own.needs:
        assert info.count_network(own.fields) == own.network


def test_shipped_figures_are_of_the_catalogue_as_it_stands():
    """Where not: python scripts/count_experts.py."""
    for name in catalogue():
        entry = {key: value for key, value in info.resolve_entry(name, "here").items() if key not in WEIGHT_KEYS}
        assert info.shipped_network(parse_expert(entry, "here")) is not None, name


def test_the_list_of_the_catalogue_imports_no_network():
    code = (
        "import sys; from tove_lvlm.experts.info import find_experts; rows = find_experts([]); "
        "assert rows and all(row.as_dict()['about'] for row in rows); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False"


def test_kind_and_names_choose():
    (one,) = find_experts(["dinov2_l14_reg"])
    assert one.about.startswith("DINOv2")
    assert find_experts(["dinov2_l14_reg"], "low_level") == []
    with pytest.raises(UserError, match="--kind is `depth`; valid: embedding"):
        find_experts([], "depth")
    with pytest.raises(ConfigError, match="unknown expert `dinov2_l14_rg`; did you mean `dinov2_l14_reg`"):
        find_experts(["dinov2_l14_rg"])


def test_a_library_that_is_absent_leaves_the_row(monkeypatch):
    monkeypatch.setattr(info, "_shipped", dict)
    monkeypatch.setattr(info, "count_network", _absent)
    row = expert_info({**MOBILE, "image_size": 32}).as_dict()
    assert (row["name"], row["parameters"], row["grid"]) == ("small", None, None)
    assert "tove-lvlm[experts]" in row["needs"]
    assert row["commercial"] == "unknown"


def _absent(fields):
    raise ImportError("this needs the package `timm`, which is not installed: pip install 'tove-lvlm[experts]'")


def test_what_installs_a_library():
    assert install_hint("timm") is None
    assert install_hint("nobody's") is None
    assert code_license("open_clip") == "mit"  # of one family
    assert code_license("kornia") == "apache-2.0"  # of several
    assert code_license("nobody's") is None


def test_what_installs_a_library_that_is_not_here(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert install_hint("timm") == "pip install 'tove-lvlm[experts]'"
    assert install_hint("torchvision") == "pip install torchvision"


@pytest.mark.parametrize(("library", "package"), [("timm", "timm"), ("open_clip", "open_clip_torch")])
def test_licences_of_libraries_are_those_of_the_installed_ones(library, package):
    classifiers = " ".join(importlib.metadata.metadata(package).get_all("Classifier"))
    assert code_license(library).split("-")[0] in classifiers.lower()


def test_a_time_is_measured():
    fields = expert_info({**MOBILE, "image_size": 32}).fields
    assert 0 < measure_network(fields, "cpu", "bfloat16", batch_size=2, repeats=1)
