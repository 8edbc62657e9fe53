"""`tove gates` on every kind of checkpoint: what is drawn, what is written, what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from helpers import tiny_towers
from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.viz import palette
from tove_lvlm.viz.gates import gates_of_images
from tove_lvlm.viz.gates_plot import common_scale, gate_page, gate_panel, heat_picture


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two pictures, one with a name that matplotlib would read as mathematics."""
    folder = tmp_path_factory.mktemp("images")
    files = [folder / "a$b$_{<x>.png", folder / "second.png"]
    for index, file in enumerate(files):
        Image.effect_noise((32, 24), 60 + 30 * index).convert("RGB").save(file)
    return files


def drawn(axes):
    """The heat that an axes shows: its last image, the picture lies beneath."""
    return np.asarray(axes.images[-1].get_array())


def test_panels_and_pages_show_the_figures(checkpoints, images):
    loaded = open_checkpoint(checkpoints["tower"])
    loaded.tower.detach("cnn")
    gates = list(gates_of_images(loaded, images))
    scale = common_scale(gates)
    assert scale.gate == (min(g.gate_KYX[:3].min() for g in gates), max(g.gate_KYX.max() for g in gates))
    assert scale.strength == (0, max(g.strength_KYX.max() for g in gates))
    panel, page = gate_panel(gates[0], "title", scale), gate_page(gates, ["a", "b"], scale)
    rows = np.array(panel.axes[:18]).reshape(3, 6)  # the picture, four experts, the colour bars
    for k in range(3):
        for row, values_KYX, limits in ((1, gates[0].gate_KYX, scale.gate), (2, gates[0].strength_KYX, scale.strength)):
            assert np.array_equal(drawn(rows[row, k + 1]), heat_picture(gates[0], values_KYX[k], limits))
            assert rows[row, k + 1].images[-1].get_extent() == [0, 1, 1, 0]  # row 0 at the top
        assert np.array_equal(drawn(rows[0, k + 1]), gates[0].maps[gates[0].names[k]])
        mass = gates[0].gate_mass()[gates[0].names[k]]
        assert rows[1, k + 1].get_title().startswith(f"gate {mass:.3f}")
    assert {text.get_text() for axes in rows[:, 4] for text in axes.texts} == {"detached"}
    assert not any(axes.images for axes in rows[:, 4])
    from matplotlib.colors import to_rgb

    colors = [to_rgb(color) for color in palette.expert_colors(gates[0].names).values()]
    assert drawn(rows[1, 0]).tolist() == [[list(colors[k]) for k in row] for row in gates[0].first_YX]
    lines = np.array(page.axes[:16]).reshape(2, 8)
    for line, one in zip(lines, gates, strict=True):
        assert np.array_equal(drawn(line[0]), one.picture_HW3)
        heat = [heat_picture(one, one.gate_KYX[k], scale.gate) for k in range(3)]
        assert all(np.array_equal(drawn(line[k + 3]), heat[k]) for k in range(3))


def test_every_expert_detached_still_draws(checkpoints, images):
    loaded = open_checkpoint(checkpoints["tower"])
    loaded.tower.detach(*loaded.tower.expert_names)
    (gates,) = gates_of_images(loaded, images[:1])
    gate_panel(gates, "", common_scale([gates])).canvas.draw()
    gate_page([gates], [""], common_scale([gates])).canvas.draw()


@pytest.mark.parametrize("kind", ["tower", "stage1", "adapter", "merged"])
def test_json_of_every_kind_is_the_direct_call(tove, checkpoints, images, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = tove("gates", checkpoints[kind], *images, "--json")
    report = json.loads(out)
    assert (code, report["kind"], report["side"]) == (0, kind, tiny_towers.SIDE)
    assert not list(tmp_path.iterdir()), "without --output, --json writes nothing"
    expected = list(gates_of_images(open_checkpoint(checkpoints[kind]), images))
    for row, one in zip(report["images"], expected, strict=True):
        for k, name in enumerate(one.names):
            np.testing.assert_allclose(row["tokens"]["gate"][name], one.gate_KYX[k], atol=6e-5)
            np.testing.assert_allclose(row["tokens"]["strength"][name], one.strength_KYX[k], atol=6e-5)


def test_what_is_written(tove, checkpoints, images, tmp_path):
    output = tmp_path / "out"
    code, out, err = tove("gates", checkpoints["tower"], *images, "--output", output)
    assert code == 0, err
    assert "depth" in out
    names = sorted(file.name for file in output.iterdir())
    assert names == ["000-a$b$_{<x>.png", "001-second.png", "gates.json", "index.html", "page.png"]
    for name in names:
        if name.endswith(".png"):
            pixels = np.asarray(Image.open(output / name).convert("RGB"))
            assert min(pixels.shape[:2]) > 300
            assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100, "not blank"
    page = (output / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "a$b$_{&lt;x&gt;.png" in page
    assert not any(word in page for word in ("http:", "https:", 'src="0', "<x>")), "base64 has no colon"
    assert len(json.loads((output / "gates.json").read_text())["images"]) == 2
    tove("gates", checkpoints["tower"], images[1], "--output", output)
    assert sorted(file.name for file in output.iterdir()) == ["000-second.png", "gates.json", "index.html"]


def test_bad_input_is_one_line_and_nothing_is_written(tove, checkpoints, images, tmp_path):
    broken, taken, output = tmp_path / "broken.png", tmp_path / "taken", tmp_path / "out"
    broken.write_bytes(b"no picture")
    taken.mkdir()
    (taken / "thesis.tex").write_text("mine")
    for arguments, message in [
        ((checkpoints["tower"], images[0], broken, "--output", output), "broken.png cannot be read"),
        ((tmp_path / "none", images[0], "--output", output), "does not exist"),
        ((checkpoints["tower"], images[0], "--output", taken), "holds other things"),
        ((checkpoints["tower"], images[0], "--output", broken), "is a file"),
    ]:
        code, out, err = tove("gates", *arguments)
        assert (code, out) == (2, "")
        assert message in err
        assert len(err.strip().splitlines()) == 1
    assert not output.exists()
    assert (taken / "thesis.tex").read_text() == "mine"
