"""The study's figures show the study's numbers."""

import numpy as np
import pytest
from PIL import Image
from study.axis_figure import data_axis_figure
from study.figure_parts import overall_scores
from study.figures import budgets_figure, detach_figure, families_figure, overall_figure, study_figures
from study.rows import SCENES, data_id

from tove_lvlm.viz import palette

FAMILIES = ["exist", "leftright", "color", "nearfar", "rel_left", "rel_nearer", "count"]
GROUPS = {"clip": "main", "tove": "main", "lite": "main", "only_depth": "single", "concat": "control"}
AXIS = {"clip": {3000: 0.6, 30_000: 0.7}, "tove": {30: 0.5, 300: 0.76, 3000: 0.9}}


def results() -> dict:
    rng = np.random.default_rng(0)

    def seeds():
        families = {family: {"accuracy": rng.uniform(0.3, 1), "n": 100} for family in FAMILIES}
        return {"overall": rng.uniform(0.5, 1), "families": families}

    def run():
        single = {name: rng.uniform(0.5, 1) for name in ("depth", "edges")}
        return {"order": ["edges", "depth"], "overall": list(rng.uniform(0.5, 1, 3)), "single": single, "ms": [3, 2, 1]}

    rows = {
        name: {"label": f"row {name}", "group": group, "seeds": {str(seed): seeds() for seed in range(3)}}
        for name, group in GROUPS.items()
    }
    for name, levels in AXIS.items():
        for number, level in levels.items():
            overall = {str(seed): {"overall": level + rng.uniform(0, 0.05), "families": {}} for seed in range(3)}
            row = {"label": f"row {data_id(name, number)}", "group": "data", "seeds": overall}
            if number != SCENES:
                rows[data_id(name, number)] = row
            else:
                for seed, score in overall.items():
                    rows[name]["seeds"][seed]["overall"] = score["overall"]
    budgets = {name: {budget: seeds() for budget in ("0.667", "1", "1.5")} for name in ("clip", "tove")}
    return {
        "rows": rows,
        "chance": {"overall": 0.45, "families": dict.fromkeys(FAMILIES, 0.5)},
        "data_axis": {name: {str(number): {} for number in points} for name, points in AXIS.items()},
        "budgets": budgets,
        "detach": {name: {"0": run(), "1": run()} for name in ("tove", "no_dropout")},
        "meta": {},
    }


def lines(figure, which: int = 0) -> dict:
    return {line.get_label(): line.get_xydata() for line in figure.axes[which].lines}


def percent(values) -> list[float]:
    return [100 * value for value in values]


def test_overall_has_mean_and_every_seed_of_each_row():
    given = results()
    figure = overall_figure(given)
    seeds = [line.get_xdata() for line in figure.axes[0].lines if line.get_label() == "_seeds"]
    shown = {name: row for name, row in given["rows"].items() if row["group"] != "data"}
    assert list(shown) == list(GROUPS)
    assert len(seeds) == len(shown)
    for number, (name, row) in enumerate(shown.items()):
        overall = [seed["overall"] for seed in row["seeds"].values()]
        assert sorted(seeds[number]) == pytest.approx(sorted(percent(overall)))
        assert lines(figure)[name][0, 0] == pytest.approx(100 * np.mean(overall))
        assert overall_scores(given)[name].mean == pytest.approx(100 * np.mean(overall))
    places = [lines(figure)[name][0, 1] for name in GROUPS]
    assert places == sorted(places), "rows stand in the given order"
    labels = dict(zip(figure.axes[0].get_yticks(), figure.axes[0].get_yticklabels(), strict=True))
    assert [labels[place].get_text() for place in places] == [f"row {name}" for name in GROUPS]
    upright = [line.get_xdata()[0] for line in figure.axes[0].lines if set(line.get_ydata()) == {0, 1}]
    assert upright == pytest.approx([lines(figure)["clip"][0, 0], 45])


def test_families_are_the_main_rows_only():
    given = results()
    figure = families_figure(given)
    bars = {bar.get_label(): bar.patches[0].get_height() for axes in figure.axes for bar in axes.containers}
    assert set(bars) == {f"{row}/{family}" for row in ("clip", "tove", "lite") for family in FAMILIES}
    for label, height in bars.items():
        row, family = label.split("/")
        found = [seed["families"][family]["accuracy"] for seed in given["rows"][row]["seeds"].values()]
        assert height == pytest.approx(100 * np.mean(found))
    dots = [line.get_ydata() for axes in figure.axes for line in axes.lines if line.get_marker() == "o"]
    assert len(dots) == 3 * len(FAMILIES)
    first = [seed["families"]["exist"]["accuracy"] for seed in given["rows"]["clip"]["seeds"].values()]
    assert sorted(dots[0]) == pytest.approx(sorted(percent(first)))
    chance = [line.get_ydata()[0] for axes in figure.axes for line in axes.lines if line.get_marker() == "None"]
    assert chance == [50.0] * len(FAMILIES)


def test_data_axis_is_logarithmic_and_says_where_clip_is_passed():
    given = results()
    figure = data_axis_figure(given)
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    for number, (name, points) in enumerate(AXIS.items()):
        x, y = lines(figure)[name].T
        assert x.tolist() == list(points)
        seeds = [[s["overall"] for s in given["rows"][data_id(name, n)]["seeds"].values()] for n in points]
        assert y == pytest.approx(percent(np.mean(seed) for seed in seeds))
        band = axes.collections[number].get_paths()[0].vertices[:, 1]
        assert (band.min(), band.max()) == pytest.approx((100 * np.min(seeds), 100 * np.max(seeds)))
    target = 100 * np.mean([s["overall"] for s in given["rows"]["clip_30000"]["seeds"].values()])
    assert any(line.get_ydata()[0] == pytest.approx(target) for line in axes.lines if len(line.get_xdata()) == 2)
    assert any(text.get_text() == "CLIP-only with 30,000 scenes:\nToVE is past it with 300" for text in axes.texts)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["30", "300", "3,000", "30,000"]


def test_data_axis_that_never_passes_says_nothing():
    given = results()
    for number in AXIS["tove"]:
        given["rows"][data_id("tove", number)]["seeds"] = {"0": {"overall": 0.1, "families": {}}}
    texts = [text.get_text() for text in data_axis_figure(given).axes[0].texts]
    assert "CLIP-only with 30,000 scenes" in texts


def test_data_axis_has_a_panel_for_the_base_models_captions():
    given = results()
    assert len(data_axis_figure(given).axes) == 1
    given["rows"]["caption_clip_1000"] = {"label": "c", "group": "captioner", "seeds": {"0": {"overall": 0.4}}}
    given["rows"]["caption_tove"] = {"label": "t", "group": "captioner", "seeds": {"0": {"overall": 0.7}}}
    given["data_axis"]["captioner"] = {"clip": {"1000": {}}, "tove": {"3000": {}}}
    figure = data_axis_figure(given)
    assert len(figure.axes) == 2
    assert lines(figure, 1)["clip"].tolist() == [[1000, 40]]
    assert lines(figure, 1)["tove"].tolist() == [[3000, 70]]


def test_budgets_are_shown_of_all_questions_and_of_left_and_right():
    given = results()
    figure = budgets_figure(given)
    for which, score in enumerate((lambda s: s["overall"], lambda s: s["families"]["leftright"]["accuracy"])):
        x, y = lines(figure, which)["tove"].T
        assert x.tolist() == [0.667, 1.0, 1.5]
        assert y == pytest.approx(percent(score(s) for s in given["budgets"]["tove"].values()))


def test_detach_shows_both_models_and_clip():
    given = results()
    figure = detach_figure(given)
    for name in ("tove", "no_dropout"):
        x, y = lines(figure)[name].T
        assert x.tolist() == [0, 1, 2]
        runs = [seed["overall"] for seed in given["detach"][name].values()]
        assert y == pytest.approx(percent(np.mean(runs, axis=0)))
        for expert in ("depth", "edges"):
            found = [seed["single"][expert] for seed in given["detach"][name].values()]
            assert lines(figure, 1)[f"{name}/{expert}"][0, 1] == pytest.approx(100 * np.mean(found))
    clip = overall_scores(given)["clip"].mean
    level = [line for axes in figure.axes for line in axes.lines if set(line.get_xdata()) == {0, 1}]
    assert [line.get_ydata()[0] for line in level] == pytest.approx([clip, clip])
    assert {text.get_text() for text in figure.axes[0].texts} == {"row clip", "with expert dropout", "no_dropout"}


@pytest.mark.full
def test_files_of_a_full_run_and_of_a_quick_one(tmp_path):
    files = study_figures(results(), tmp_path / "full")
    stems = ["overall", "families", "data_axis", "budgets", "detach"]
    assert [file.name for file in files] == [f"{stem}.{kind}" for stem in stems for kind in ("svg", "png")]
    for file in files[1::2]:
        pixels = np.asarray(Image.open(file).convert("RGB"))
        assert pixels.shape[1] == 1600
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50, "not blank"
    rows = {name: results()["rows"][name] | {"seeds": {"0": results()["rows"][name]["seeds"]["0"]}} for name in GROUPS}
    quick = {"rows": {**rows, "tove": rows["tove"] | {"seeds": {}}}}
    assert [file.name for file in study_figures(quick, tmp_path / "quick")][::2] == ["overall.svg", "families.svg"]
    assert study_figures({"rows": {}}, tmp_path / "none") == []


def test_a_row_of_one_expert_has_the_experts_colour():
    figure = overall_figure(results())
    colors = {line.get_label(): line.get_color() for line in figure.axes[0].lines}
    assert colors["only_depth"] == palette.EXPERTS["depth"]
    assert colors["clip"] == palette.MODELS["clip"]
