"""The gate ladder: its rows, its experts, what is measured, and one small training of it."""

import json

import numpy as np
import pytest
import torch
from study import domain_depth, ladder, ladder_figures, routing, training

from helpers.benchmarks import run_benchmark
from tove_lvlm.experts import build_expert
from tove_lvlm.storage import ASSETS, load_json
from tove_lvlm.tower.build import build_tower
from tove_lvlm.world.render import relative_depth, render
from tove_lvlm.world.scene import COLORS, sample, split_seeds

NUM_SCENES = 48


@pytest.fixture(autouse=True)
def _experts(monkeypatch):
    monkeypatch.setattr(training, "EXTRA_EXPERTS", dict(training.EXTRA_EXPERTS))
    ladder.register_experts()


def test_every_row_is_there_once_and_its_tower_can_be_built(tmp_path):
    rows = ladder.ladder_rows()
    assert len({row.id for row in rows}) == len(rows) == 2 * 2 * 6 + 1 + 2
    for row in rows[:1] + [row for row in rows if row.id in ("whole", "within_picture/inverted/concat")]:
        tower = build_tower(training.write_tower(row, tmp_path / row.id))
        assert tower.expert_names == list(row.experts)
        assert tower(torch.randn(1, 3, 64, 64)).last_hidden_state.shape[1] == 64


# ---- the experts ----


@pytest.fixture(scope="module")
def scenes():
    return sample(split_seeds("heldout", NUM_SCENES))


@pytest.fixture(scope="module")
def pixels(scenes):
    config = load_json(ASSETS / "miniature" / "domains" / "config.json")
    rgb = torch.from_numpy(render(scenes).rgb).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    return (rgb - mean) / std


@torch.no_grad()
def maps(pixels, domain: str, wrong: str) -> torch.Tensor:
    """(S, 64, 64): what the expert says."""
    folder = ASSETS / "miniature" / "domains"
    entry = {**load_json(folder / "config.json"), **ladder.domain_expert(domain, wrong), "mlp_ratio": 4.0}
    del entry["pretrained"]
    expert = build_expert({"name": "one", **entry})
    expert.load_pretrained(folder)
    found = expert.eval()(pixels)[:, 0]
    assert found.shape[1:] == (128, 128)
    return found[:, ::2, ::2]


@pytest.mark.parametrize(
    ("domain", "wrong_colors"), [("warm", ("blue", "cyan")), ("cool", ("red", "yellow")), ("all", ())]
)
def test_an_expert_is_wrong_about_the_other_kind_of_objects_alone(scenes, pixels, domain, wrong_colors):
    rendered = render(scenes)
    true = torch.from_numpy(relative_depth(rendered.depth))
    slot = np.maximum(rendered.object_id, 0)
    color = scenes.color[np.arange(NUM_SCENES)[:, None, None], slot]
    on = rendered.object_id >= 0
    wrong = torch.from_numpy(on & np.isin(color, [COLORS.index(name) for name in wrong_colors]))
    error = (maps(pixels, domain, "inverted") - true).abs()
    right = torch.from_numpy(on) & ~wrong
    assert error[right].mean() < 0.07
    if wrong.any():
        assert error[wrong].mean() > 0.15
        inverted = (maps(pixels, domain, "inverted") - (domain_depth.MIRROR - true)).abs()
        assert inverted[wrong].mean() < 0.09
        unrelated = maps(pixels, domain, "unrelated")
        pair = torch.stack([unrelated[wrong], true[wrong]]).double()
        assert torch.corrcoef(pair)[0, 1].abs() < 0.5
        best = torch.stack([unrelated[right], true[right]]).double()
        assert torch.corrcoef(best)[0, 1] > 0.8


def test_an_expert_is_wrong_about_the_other_kind_of_pictures_alone(scenes, pixels):
    true = torch.from_numpy(relative_depth(render(scenes).depth))
    ground = torch.from_numpy(scenes.ground_color_S3.mean(axis=-1))
    error = (maps(pixels, "bright", "inverted") - true).abs().mean((1, 2))
    assert error[ground > 0.42].mean() < 0.05
    assert error[ground < 0.38].mean() > 0.4


# ---- what is measured ----


def test_domain_tokens_are_counted_pixels(scenes):
    tokens = routing.domain_tokens(scenes, 8)
    objects = render(scenes).object_id
    for index in (0, 7, 31):
        for cell in (18, 27, 36, 45):
            row, column = divmod(cell, 8)
            slots = objects[index, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            colors = [COLORS[scenes.color[index, slot]] for slot in slots.ravel() if slot >= 0]
            for domain, named in routing.COLORS_OF.items():
                assert tokens[domain][index, cell] == (sum(color in named for color in colors) >= 32)
    dark = scenes.ground_color_S3.mean(axis=-1) < 0.40
    assert not tokens["dark"][~dark].any()
    assert tokens["dark"][dark].any()


def test_summary_by_hand():
    run = {"depth": 0.9, "overall": 0.8, "mass_right": 0.75, "spread": 0.1}
    runs = {
        "within_picture/unrelated/token": {"0": run, "1": run | {"depth": 0.94, "mass_right": 0.85}},
        "whole": {"0": {"depth": 0.97, "overall": 0.9}},
    }
    summary = ladder.summarise(runs)
    assert summary["within_picture"]["unrelated"]["token"] == {
        "depth": 92.0, "overall": 80.0, "mass_right": 80.0, "spread": 10.0, "depth_range": [90.0, 94.0], "seeds": [0, 1]
    }  # fmt: skip
    whole = {"depth": 97.0, "overall": 90.0, "depth_range": [97.0, 97.0], "seeds": [0]}
    assert summary["between_pictures"]["inverted"] == {"whole": whole}
    text = ladder.table(summary | {"runs": runs})
    assert "| within picture | unrelated | token | 92.0 | 90.0 to 94.0 | 80.0 | 80.0 |" in text
    assert "| between pictures | inverted | whole | 97.0 | 97.0 to 97.0 | 90.0 | - |" in text


def test_figure_is_drawn_from_what_there_is(tmp_path):
    run = {"depth": 0.9, "overall": 0.8, "mass_right": 0.75, "spread": 0.1}
    assert ladder_figures.ladder_figure(ladder.summarise({}), tmp_path) == []
    files = ladder_figures.ladder_figure(ladder.summarise({"within_picture/inverted/image": {"0": run}}), tmp_path)
    assert {file.suffix for file in files} == {".svg", ".png"}
    assert "90.0, mass 75" in files[0].read_text()


@pytest.mark.full
def test_the_smallest_row_and_going_on(tmp_path):
    def run() -> str:
        return run_benchmark("gate_ladder.py", "--quick", "--output", tmp_path, "--workers", "1")

    assert "[3/3] within_picture-unrelated-token/score" in run()
    results = json.loads((tmp_path / "results" / "gate_ladder.json").read_text())
    cell = results["within_picture"]["unrelated"]["token"]
    assert 30 < cell["depth"] < 100
    assert cell["seeds"] == [0]
    assert {"gate_ladder.svg", "gate_ladder_pictures.png"} <= {file.name for file in (tmp_path / "results").iterdir()}
    (tmp_path / "seed0").rename(tmp_path / "gone")
    assert "[1/" not in run(), "what the JSON holds is not trained again"
    assert json.loads((tmp_path / "results" / "gate_ladder.json").read_text())["runs"] == results["runs"]
