"""What the page's script draws of a picture: figures of each token, and each attached expert's pictures."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from helpers.tiny_gates import gates_of
from tove_lvlm.view.gate_view import cell_images, gate_json, static
from tove_lvlm.view.requests import Seen
from tove_lvlm.viz.gates_plot import Scale, common_scale, heat_picture


def test_each_attached_expert_has_its_three_pictures():
    gate_KYX = np.stack([np.full((2, 3), 0.8), np.full((2, 3), 0.2), np.zeros((2, 3))]).astype(np.float32)
    gates = gates_of(gate_KYX, ["depth", "edges", "text"], detached="text")
    scale = common_scale([gates])
    cells = cell_images(gates, scale)
    assert list(cells) == ["depth", "edges"]

    def pixels(name: str, kind: str) -> np.ndarray:
        beginning, content = cells[name][kind].split(",")
        assert beginning == "data:image/png;base64"
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))

    assert np.array_equal(pixels("edges", "map"), gates.maps["edges"])
    assert np.array_equal(pixels("depth", "gate"), heat_picture(gates, gate_KYX[0], scale.gate))
    assert np.array_equal(pixels("edges", "strength"), heat_picture(gates, gate_KYX[1] / 2, scale.strength))
    assert scale == Scale(gate=(float(np.float32(0.2)), float(np.float32(0.8))), strength=(0.0, float(np.float32(0.4))))


def test_the_json_holds_every_token_of_every_expert():
    gate_KYX = np.random.default_rng(0).dirichlet([1, 1], (2, 3)).transpose(2, 0, 1).astype(np.float32)
    gate_KYX = np.concatenate([gate_KYX, np.zeros((1, 2, 3), dtype=np.float32)])
    gates = gates_of(gate_KYX, ["depth", "edges", "text"], detached="text")
    data = json.loads(gate_json(Seen(gates=gates, tower_ms=1, memory_bytes=1), "a.png"))
    assert (data["name"], data["side"]) == ("a.png", 3)
    assert [(expert["name"], expert["attached"]) for expert in data["experts"]] == [
        ("depth", True),
        ("edges", True),
        ("text", False),
    ]
    for k, name in enumerate(gates.names):
        assert np.array(data["tokens"]["gate"][name]) == pytest.approx(gate_KYX[k], abs=1e-4)
        assert np.array(data["tokens"]["strength"][name]) == pytest.approx(gate_KYX[k] / 2, abs=1e-4)
    assert list(data["cells"]) == ["depth", "edges"]
    assert {expert["color"][0] for expert in data["experts"]} == {"#"}


def test_script_and_markup_name_the_same_parts():
    script, markup = static("gate.js"), static("gate.html")
    for part in ("tove-panel", "tove-hint", "tove-experts", "tove-cells", "tove-bars", "tove-spoken"):
        assert f"{part}" in markup
        assert f".{part}" in script
