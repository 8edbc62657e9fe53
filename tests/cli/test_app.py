"""The command `tove`, called as a user calls it but in this process."""

import gc
import json
import sys

import pytest

from helpers.paths import ROOT
from tove_lvlm.cli.app import heavy_imports

SEVEN_B = ROOT / "projects" / "tove_vicuna_7b"


def test_experts_lists_catalogue_and_families(tove):
    code, out, _ = tove("experts", "--json")
    assert code == 0
    listed = json.loads(out)
    families = {row["family"]: row["about"] for row in listed["families"]}
    assert {"timm", "dense_vit"} <= set(families)
    assert all(families.values())
    experts = {row["name"]: row for row in listed["experts"]}
    assert experts["dinov2_l14_reg"]["parameters"] == 304_370_688  # timm's own count of the backbone
    assert (experts["dinov2_l14_reg"]["license"], experts["dinov2_l14_reg"]["commercial"]) == ("apache-2.0", "yes")
    assert listed["measured"] is None


def test_experts_prints_a_list_and_what_one_declares(tove):
    code, out, _ = tove("experts")
    assert code == 0
    assert "1024 x 37x37" in out
    code, out, _ = tove("experts", "dinov2_l14_reg")
    assert code == 0
    assert "timm: vit_large_patch14_reg4_dinov2.lvd142m" in out
    assert "code apache-2.0, weights apache-2.0" in out


def test_experts_says_where_commercial_use_is_forbidden_and_times_when_asked(tove):
    code, out, _ = tove("experts", "timm/convnextv2_atto.fcmae", "--measure", "--batch-size", "1", "--dtype", "float32")
    assert code == 0
    words = " ".join(out.split())
    assert "commercial use no" in words
    assert "weights cc-by-nc-4.0" in words
    assert "float32, batch 1, random weights" in words
    assert "ms per image" in words


@pytest.mark.full
def test_info_counts_the_real_7b_model(tove, monkeypatch):
    monkeypatch.chdir(ROOT)
    code, out, _ = tove("info", "--cfg-path", SEVEN_B / "finetune.yaml", "--json")
    assert code == 0
    report = json.loads(out)
    assert report["stage"] == "finetune"
    assert report["visual_tokens"] == 576
    parts = {row["name"]: row for row in report["parts"]}
    # CLIP-L/14-336's vision tower has 303,507,456 parameters; mlp2x_gelu 1024 -> 4096 -> 4096.
    assert parts["clip"]["frozen"] == 303_507_456
    assert parts["projector"]["trainable"] == 1024 * 4096 + 4096 + 4096 * 4096 + 4096
    # Vicuna-7B (6,738,415,616) with 64 rows for `<image>` in both embeddings.
    assert parts["language model"]["frozen"] == 6_738_415_616 + 2 * 64 * 4096
    # LoRA r = 128 on q k v o (4096 -> 4096), gate up (4096 -> 11008) and down of 32 layers.
    assert parts["language model"]["trainable"] == 32 * 128 * (4 * 2 * 4096 + 3 * (4096 + 11008))
    assert parts["expert dinov2"]["trainable"] == parts["expert eva02_clip"]["trainable"] == 0
    # CLIP-L at 336 px: about 191 GMACs in 24 layers, of which the last is not read.
    assert parts["clip"]["flops"] == pytest.approx(2 * 191e9 * 23 / 24, rel=0.01)
    memory = {(row["setting"], row["num_gpus"]): row["gpu_bytes"] for row in report["memory"]}
    assert {count for _, count in memory} == {1, 2, 4, 8, 16, 32, 64}
    trainable, frozen = report["totals"]["trainable"], report["totals"]["frozen"]
    # ZeRO-2: bf16 weights on every GPU, gradients and optimizer states (18 bytes) divided.
    assert memory["zero2", 8] == pytest.approx(2 * frozen + (2 + 18 / 8) * trainable, rel=1e-6)
    assert memory["zero3", 8] < memory["zero2", 8] / 4


def test_info_of_stage_1_and_of_the_baseline(tove, monkeypatch):
    monkeypatch.chdir(ROOT)
    code, out, _ = tove(
        "info",
        "--json",
        "--cfg-path",
        SEVEN_B / "pretrain.yaml",
        "--options",
        "model.vision_tower=clip",
        "train.seed=1",
    )
    assert code == 0
    report = json.loads(out)
    assert report["stage"] == "pretrain"
    assert [row["name"] for row in report["parts"]] == ["clip", "projector", "language model"]
    assert report["parts"][2]["trainable"] == 0
    assert report["visual_tokens"] == 576


def test_info_prints_tables(tove, monkeypatch):
    monkeypatch.chdir(ROOT)
    code, out, _ = tove("info", "--cfg-path", "projects/miniature/finetune.yaml")
    assert code == 0
    assert "64 visual tokens per image" in out
    assert "expert depth" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "--cfg-path", "none.yaml"], "configuration file `none.yaml` does not exist"),
        (
            ["info", "--cfg-path", SEVEN_B / "pretrain.yaml", "--options", "model.vision_towr=clip"],
            "unknown key `model.vision_towr`; did you mean `vision_tower`",
        ),
        (["info"], "tove info takes a tower's YAML, or a project's with --cfg-path"),
        (["info", "none.yaml"], "`none.yaml` does not exist"),
        (["experts", "dinov2_l14_rg"], "did you mean `dinov2_l14_reg`"),
        (["experts", "--kind", "depth"], "--kind is `depth`; valid: embedding | low_level"),
        (["experts", "dinov2_l14_reg", "--measure", "--dtype", "int8"], "--dtype is `int8`; valid: float32"),
        (["chat", "photo.jpg", "what?", "--model", "no/such/folder"], "model folder `no/such/folder` does not exist"),
    ],
)
def test_bad_input_is_one_line_and_code_2(tove, arguments, message):
    code, _, err = tove(*arguments)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_garbage_is_not_looked_for_while_heavy_packages_come_and_is_afterwards(monkeypatch):
    monkeypatch.delitem(sys.modules, "transformers.modeling_utils", raising=False)
    with heavy_imports():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    gc.unfreeze()
    with pytest.raises(ImportError), heavy_imports():
        raise ImportError
    assert gc.isenabled()
    monkeypatch.setitem(sys.modules, "transformers.modeling_utils", object())
    with heavy_imports():
        assert gc.isenabled(), "they are here already"
    assert gc.get_freeze_count() == 0
