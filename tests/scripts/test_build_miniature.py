"""The encoders' training stages and what they left in the package."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.paths import ROOT
from tove_lvlm.experts import EXPERTS
from tove_lvlm.storage import ASSETS, load_json
from tove_lvlm.world import language, scene

MINIATURE = ASSETS / "miniature"
ENCODERS = ("clip", "depth", "normals", "edges", "shapes")


@pytest.fixture(scope="module")
def stages():
    """The modules under scripts/, imported as the script imports them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        import build_miniature
        from miniature import clip, common, dense, domains, shapes
    modules = {"clip": clip, "common": common, "dense": dense, "domains": domains, "shapes": shapes}
    return {"build": build_miniature, **modules}


@pytest.fixture(scope="module")
def pool(stages):
    return stages["common"].build_pool(96, 96)


def _expert(folder: Path, family: str, output: str):
    """Through the same code as any expert."""
    fields = load_json(folder / "config.json") | {"name": "one", "family": family, "output": output}
    if family == "dense_vit":
        fields.setdefault("mlp_ratio", 4.0)
    else:
        fields.setdefault("channels", None)
    expert = EXPERTS.get(family)(fields)
    expert.load_pretrained(folder)
    return expert.eval()


@torch.no_grad()
def test_a_dense_stage_writes_what_the_expert_family_reads(stages, pool, tmp_path, monkeypatch):
    dense, common = stages["dense"], stages["common"]
    short = {name: dense.dataclasses.replace(target, steps=2, batch=4) for name, target in dense.TARGETS.items()}
    monkeypatch.setattr(dense, "TARGETS", short)
    seen = []
    with torch.enable_grad():
        records = [
            dense.train("normals", pool, tmp_path / str(run), lambda *report: seen.append(report)) for run in range(2)
        ]
    assert seen[0][:3] == ("normals", 2, 2)
    assert records[0]["heldout"] == records[1]["heldout"]
    files = [(tmp_path / run / "model.safetensors").read_bytes() for run in "01"]
    assert files[0] == files[1]
    expert = _expert(tmp_path / "0", "dense_vit", "map")
    model = dense.DenseViT(3)
    model.load_state_dict({key: value.float() for key, value in expert.state_dict().items()})
    pixels = common.normalised(pool.heldout.rgb[:2])
    torch.testing.assert_close(expert(pixels), model.eval()(pixels), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_domains_stage_writes_what_its_channels_should_be(stages, pool, tmp_path, monkeypatch):
    domains = stages["domains"]
    monkeypatch.setattr(domains, "STEPS", 2)
    monkeypatch.setattr(domains, "BATCH", 4)
    with torch.enable_grad():
        record = domains.train(pool, tmp_path, lambda *report: None)
    fields = load_json(tmp_path / "config.json")
    assert fields["channels"] == sum(domains.CHANNELS.values()) == 6
    assert set(record["heldout"]) == {
        "depth_object_correlation", "depth_by_size_object_correlation", "domain_on_objects", "ground_correlation"
    }  # fmt: skip
    true = domains.targets(pool.heldout, pool.heldout_scenes, slice(0, 8))
    slot = pool.heldout.object_id[:8]
    for image, row, column in zip(*np.nonzero(slot >= 0), strict=True):
        thing = slot[image, row, column]
        color = scene.COLORS[pool.heldout_scenes.color[image, thing]]
        expected = {"red": 1, "yellow": 1, "blue": 2, "cyan": 2}.get(color, 0)
        assert true["domain"][image, row, column] == expected
    assert true["depth_by_size"][slot < 0].equal(true["depth"][slot < 0])
    assert np.allclose(domains.depth_by_size(np.array([6.0, 8.0, 10.0])), [8.0, 4.0, 2.0])


def test_shipped_domains_network_knows_what_it_needs():
    record = load_json(MINIATURE / "training_record.json")["domains"]
    assert record["heldout"]["domain_on_objects"] > 0.97
    assert record["heldout"]["depth_object_correlation"] > 0.85


def test_training_changes_weights_but_not_positions(stages, pool, tmp_path, monkeypatch):
    clip, common = stages["clip"], stages["common"]
    monkeypatch.setattr(clip, "STEPS", 2)
    monkeypatch.setattr(clip, "BATCH", 4)
    torch.manual_seed(clip.SEED)
    before = clip.build_model(clip.Captions()).vision_model.state_dict()
    record = clip.train(pool, tmp_path, lambda *report: None)
    from transformers import CLIPImageProcessor, CLIPVisionModel

    after = CLIPVisionModel.from_pretrained(tmp_path, dtype=torch.float32).state_dict()
    key = next(name for name in after if name.endswith("position_embedding.weight"))
    short = key.removeprefix("vision_model.")
    torch.testing.assert_close(after[key], before[short].half().float())
    expected = common.sincos_positions(common.WIDTH, common.SIDE)
    torch.testing.assert_close(after[key][1:], expected, atol=2e-3, rtol=0)
    patch = key.replace("position_embedding", "patch_embedding")
    assert (after[patch] - before[patch.removeprefix("vision_model.")]).abs().max() > 1e-4
    assert set(record["heldout"]) >= {"top1_of_128", "probe_row", "probe_depth_r2"}
    processor = CLIPImageProcessor.from_pretrained(tmp_path)
    inputs = processor(pool.heldout.rgb[0], return_tensors="pt").pixel_values
    torch.testing.assert_close(inputs, common.normalised(pool.heldout.rgb[:1]), atol=1e-4, rtol=1e-4)


def test_captions_name_every_object_and_tell_no_order(stages):
    clip, scenes = stages["clip"], scene.sample(np.arange(200))
    captions = clip.Captions()
    ids = clip.caption_ids(captions, captions.numbers(scenes), scenes.num_objects, np.random.default_rng(0))
    words = scene.COLORS + scene.SHAPES
    first = 0
    for i in range(200):
        n = int(scenes.num_objects[i])
        named = [words[w - 5] for w in ids[i].tolist() if w >= 5]
        pairs = list(zip(named[::2], named[1::2], strict=True))
        slots = zip(scenes.color[i, :n], scenes.shape[i, :n], strict=True)
        assert sorted(pairs) == sorted((scene.COLORS[c], scene.SHAPES[s]) for c, s in slots)
        left = int(scenes.x[i, :n].argmin())
        first += pairs[0] == (scene.COLORS[scenes.color[i, left]], scene.SHAPES[scenes.shape[i, left]])
    expected = float((1 / scenes.num_objects).mean())
    assert abs(first / 200 - expected) < 0.12


def test_richer_captions_name_each_objects_distance(stages):
    clip, scenes = stages["clip"], scene.sample(np.arange(50))
    captions = clip.Captions(distances=True)
    numbers = captions.numbers(scenes)
    ids = clip.caption_ids(captions, numbers, scenes.num_objects, np.random.default_rng(0))
    words = [*scene.COLORS, *scene.SHAPES, *clip.DISTANCES]
    assert captions.num_words == 5 + len(words)
    for i in range(50):
        named = " ".join(words[w - 5] for w in ids[i].tolist() if w >= 5)
        said = language.captions(scenes, i, np.random.default_rng(0)).split(". ")[0]
        objects = sorted(" ".join(part.split()[1:4]) for part in said.split(", "))
        assert sorted(re.findall(r"\w+ \w+ \w+", named)) == objects
    phrases = clip.phrase_ids(captions)
    assert phrases.shape == (72, 6)
    assert len({tuple(row) for row in phrases.tolist()}) == 72
    found = {tuple(row[2:5]) for row in phrases[torch.from_numpy(numbers[scenes.valid])].tolist()}
    assert len(found) > 40


def test_positions_are_all_different(stages):
    code = stages["common"].sincos_positions(96, 8)
    distance = torch.cdist(code, code) + 99 * torch.eye(64)
    assert distance.min() > 1.0
    assert abs(float(code.square().mean()) - 0.5) < 1e-5


def test_cell_labels(stages, pool):
    slot, shape, color = stages["clip"].cell_labels(pool.train.object_id, pool.train_scenes)
    assert slot.shape == (96, 64)
    for i, cell in [(0, 10), (5, 33), (40, 27), (80, 50)]:
        row, col = divmod(cell, 8)
        part = pool.train.object_id[i, 8 * row : 8 * row + 8, 8 * col : 8 * col + 8]
        counts = [(part == k).sum() for k in range(4)]
        if max(counts) >= 16:
            assert counts[slot[i, cell]] == max(counts)
            assert shape[i, cell] == pool.train_scenes.shape[i, slot[i, cell]]
            assert color[i, cell] == pool.train_scenes.color[i, slot[i, cell]]
        else:
            assert slot[i, cell] == shape[i, cell] == color[i, cell] == -1


def test_edge_figures_know_a_perfect_and_a_shifted_detector(stages, pool):
    measure = stages["dense"]._edges_figures
    true = torch.from_numpy(pool.train.edges).float()[:, None]
    assert measure(true * 2 - 1, pool.train)["f1"] == 1.0
    shifted = measure(torch.roll(true, 1, dims=3) * 2 - 1, pool.train)
    assert shifted["f1"] > 0.97
    assert shifted["f1_exact"] < 0.6
    assert measure(torch.ones_like(true), pool.train)["f1"] < 0.5


def test_stages_are_shared_out_by_length(stages):
    build = stages["build"]
    lanes = build.share_out(list(build.STAGES), 2)
    assert sorted(sum(lanes, [])) == sorted(build.STAGES)
    spent = [sum(build.MINUTES[name] for name in lane) for lane in lanes]
    assert max(spent) <= 34  # minutes of two lanes; the decoder alone takes 28
    assert build.share_out(["depth"], 4) == [["depth"]]
    with pytest.raises(SystemExit):
        build.main(["--only", "clip,colour"])


# ---- what is shipped ----


def test_shipped_files_are_small_and_recorded():
    files = [path for path in MINIATURE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12e6
    assert sum(path.stat().st_size for name in ENCODERS for path in (MINIATURE / name).iterdir()) < 5e6
    record = load_json(MINIATURE / "training_record.json")
    for name in (*ENCODERS, "domains"):
        assert {"seed", "steps", "seconds", "heldout", "made_on"} <= set(record[name]), name
    text = json.dumps(record)
    assert "/home" not in text
    assert "/work" not in text


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "figure", "least", "most"),
    [("depth", "object_correlation", 0.8, 1.0), ("normals", "object_degrees", 0.0, 19.0), ("edges", "f1", 0.8, 1.0)],
)
def test_shipped_dense_experts_do_their_work(stages, pool, name, figure, least, most):
    expert = _expert(MINIATURE / name, "dense_vit", "map")
    guess = expert(stages["common"].normalised(pool.heldout.rgb)).float()
    assert least <= stages["dense"].TARGETS[name].measure(guess, pool.heldout)[figure] <= most


@torch.no_grad()
def test_shipped_clip_knows_place_and_color_but_not_depth(stages, pool):
    from transformers import CLIPVisionModel

    vision = CLIPVisionModel.from_pretrained(MINIATURE / "clip", dtype=torch.float32).eval()
    small = stages["common"].build_pool(512, 128)
    figures = stages["clip"].probe_tokens(vision, small)
    assert min(figures["probe_row"], figures["probe_column"]) > 0.95
    assert figures["probe_color"] > 0.9
    assert figures["probe_shape"] > 0.32
    assert figures["probe_depth_r2"] < 0.5


@torch.no_grad()
def test_shipped_shapes_expert_knows_shape_and_color(stages):
    expert = _expert(MINIATURE / "shapes", "timm", "features")
    small = stages["common"].build_pool(512, 128)
    tokens = [
        expert(stages["common"].normalised(part.rgb)).float().flatten(2).transpose(1, 2)
        for part in (small.train, small.heldout)
    ]
    assert tokens[0].shape == (512, 64, expert.spec.channels)
    figures = stages["clip"].linear_probes(*tokens, small)
    assert figures["probe_shape"] > 0.65
    assert figures["probe_color"] > 0.95
