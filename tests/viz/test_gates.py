"""The gate's figures lie where the token is, and equal what the tower gives."""

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import tiny_towers
from tove_lvlm.checkpoints import LoadedCheckpoint
from tove_lvlm.checkpoints.tower import TowerCheckpoint
from tove_lvlm.config import UserError
from tove_lvlm.data.errors import DataError
from tove_lvlm.tower.image_processing import ToVEImageProcessor
from tove_lvlm.viz.gates import as_json, find_gated_tower, gates_of_images, principal_components, read_gates


def as_loaded(tower, folder) -> LoadedCheckpoint:
    processor = ToVEImageProcessor.for_tower(tower.config) if hasattr(tower, "tove_fusion") else None
    return LoadedCheckpoint(
        checkpoint=TowerCheckpoint(folder), model=tower.eval(), processor=processor, image_aspect_ratio="pad"
    )


@torch.no_grad()
def by_hand(tower, pixels):
    """(gate, strength), each (B, N, K), from the tower's parts."""
    from tove_lvlm.experts.preprocess import Preprocessing

    config = tower.config
    given = Preprocessing(config.image_size, tuple(config.image_mean), tuple(config.image_std))
    t_clip, grids = tower.clip_tokens(pixels), tower.experts(pixels, given)
    gate = tower.tove_fusion.gate(t_clip, [name in grids for name in tower.expert_names]).probs_BNK
    strength = torch.zeros_like(gate)
    for k, name in enumerate(tower.expert_names):
        if name in grids:
            unit = tower.config.fusion["transfer_scale"] * t_clip.square().mean(-1, keepdim=True).sqrt()
            e = tower.tove_fusion.shared_out(tower.tove_fusion.transfers[name](grids[name]))
            term = gate[..., k, None] * unit * e
            strength[..., k] = term.norm(dim=-1) / t_clip.norm(dim=-1)
    return gate, strength


def make_local(tower):
    """CLIP without attention, MLP and places: a token tells of its own patch and of nothing else."""
    tiny_towers.wake(tower)
    with torch.no_grad():
        for name, parameter in tower.clip.named_parameters():
            if any(part in name for part in ("out_proj", "mlp.fc2", "position_embedding")):
                parameter.zero_()
    return tower


@pytest.mark.parametrize(("row", "column"), [(0, 3), (1, 2), (3, 0)])
def test_the_one_cell_where_the_picture_differs_is_the_one_where_the_gate_does(tiny_tower, row, column):
    tower = make_local(tiny_tower).eval()
    pixels = torch.full((1, 3, tiny_towers.SIZE, tiny_towers.SIZE), -0.8)
    pixels[
        :,
        :,
        tiny_towers.PATCH * row : tiny_towers.PATCH * (row + 1),
        tiny_towers.PATCH * column : tiny_towers.PATCH * (column + 1),
    ] = 0.9
    (gates,) = read_gates(tower, pixels)
    fires = np.abs(gates.gate_KYX - np.median(gates.gate_KYX, axis=(1, 2), keepdims=True)).max(0) > 1e-3
    assert np.argwhere(fires).tolist() == [[row, column]]
    bright = gates.picture_HW3[tiny_towers.PATCH * row + 1, tiny_towers.PATCH * column + 1]
    assert (bright > 200).all()


def test_figures_equal_the_parts_of_the_tower(tiny_tower):
    tower = tiny_towers.wake(tiny_tower).eval()
    pixels = tiny_towers.pixels(3)
    gate_BNK, strength_BNK = by_hand(tower, pixels)
    assert torch.equal(gate_BNK, tower(pixels).gate_probs)
    for image, gates in enumerate(read_gates(tower, pixels)):
        for k in range(len(tower.expert_names)):
            for y in range(tiny_towers.SIDE):
                for x in range(tiny_towers.SIDE):
                    token = y * tiny_towers.SIDE + x
                    assert gates.gate_KYX[k, y, x] == gate_BNK[image, token, k]
                    assert gates.strength_KYX[k, y, x] == pytest.approx(strength_BNK[image, token, k].item(), rel=1e-4)
        assert gates.first_YX.ravel().tolist() == gate_BNK[image].argmax(-1).tolist()
        assert gates.strongest_YX.ravel().tolist() == strength_BNK[image].argmax(-1).tolist()
        assert list(gates.gate_mass().values()) == pytest.approx(gate_BNK[image].mean(0).tolist(), rel=1e-5)
        assert sum(gates.first_share().values()) == pytest.approx(1)
    assert not tower.experts["depth"]._forward_hooks, "nothing is left on the tower"


def test_maps_are_the_experts_own_pictures_or_principal_components(tiny_tower):
    from tove_lvlm.experts.preprocess import Preprocessing

    tower = tiny_towers.wake(tiny_tower).eval()
    pixels, config = tiny_towers.pixels(1), tower.config
    given = Preprocessing(config.image_size, tuple(config.image_mean), tuple(config.image_std))
    grids = tower.experts(pixels, given)
    (gates,) = read_gates(tower, pixels)
    assert gates.features == ["shapes", "cnn"]
    for name in ("depth", "normals"):
        assert np.array_equal(gates.maps[name], tower.experts[name].picture(grids[name])[0].numpy())
    assert gates.maps["shapes"].shape == (*grids["shapes"].shape[2:], 3)
    assert (gates.maps["shapes"].min(), gates.maps["shapes"].max()) == (0, 255)


def test_principal_components_find_the_axes_of_greatest_spread():
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(6, 6, generator=generator)).Q[:3]
    parts = torch.randn(1, 3, 8, 8, generator=generator)
    parts = parts - parts.mean((2, 3), keepdim=True)
    basis = torch.linalg.qr(parts.flatten(2)[0].T).Q.T.reshape(1, 3, 8, 8)  # uncorrelated, so that they are the axes
    scaled = basis * torch.tensor([9.0, 5.0, 2.0])[None, :, None, None]
    found = principal_components(torch.einsum("bcyx,cd->bdyx", scaled, axes) + 7)
    torch.testing.assert_close(found.abs(), scaled.abs(), atol=1e-4, rtol=1e-4)
    assert torch.equal(principal_components(torch.zeros(1, 2, 3, 3)), torch.zeros(1, 3, 3, 3))


def test_detached_experts_have_no_map_and_no_mass(tiny_tower):
    tower = tiny_towers.wake(tiny_tower).eval()
    tower.detach("normals", "cnn")
    (gates,) = read_gates(tower, tiny_towers.pixels(1))
    assert (gates.detached, sorted(gates.maps)) == (["normals", "cnn"], ["depth", "shapes"])
    gate_BNK, _ = by_hand(tower, tiny_towers.pixels(1))
    assert np.array_equal(gates.gate_KYX.reshape(4, -1).T, gate_BNK[0].numpy())
    assert not gates.gate_KYX[[1, 3]].any()
    assert not gates.strength_KYX[[1, 3]].any()
    tower.detach("depth", "shapes")
    (gates,) = read_gates(tower, tiny_towers.pixels(1))
    assert (gates.first_YX == -1).all()
    assert set(gates.first_share().values()) == {0.0}


def test_json_is_the_direct_call_rounded(tiny_tower, tmp_path):
    tower, files = tiny_towers.wake(tiny_tower).eval(), []
    for index, (width, height) in enumerate([(16, 16), (40, 20), (16, 16)]):
        files.append(tmp_path / f"{index}.png")
        Image.effect_noise((width, height), 40 + 30 * index).convert("RGB").save(files[-1])
    loaded = as_loaded(tower, tmp_path)
    report = as_json(files, list(gates_of_images(loaded, files, batch_size=2)))
    assert report["experts"] == tower.expert_names
    assert [row["image"] for row in report["images"]] == [str(file) for file in files]
    from tove_lvlm.data.images import read_image, to_pixels

    pixels = torch.stack([to_pixels(read_image(file), loaded.processor, "pad") for file in files])
    gate_BNK, strength_BNK = by_hand(tower, pixels)
    for row, gate_NK, strength_NK in zip(report["images"], gate_BNK, strength_BNK, strict=True):
        for k, name in enumerate(tower.expert_names):
            expected = gate_NK[:, k].reshape(tiny_towers.SIDE, tiny_towers.SIDE)
            np.testing.assert_allclose(row["tokens"]["gate"][name], expected, atol=6e-5)
            np.testing.assert_allclose(row["tokens"]["strength"][name], strength_NK[:, k].reshape(4, 4), atol=1e-4)
            assert row["gate_mass"][name] == pytest.approx(float(expected.mean()), abs=6e-5)
        firsts = [tower.expert_names[k] for k in gate_NK.argmax(-1).tolist()]
        assert [name for line in row["tokens"]["first"] for name in line] == firsts
    assert report["mean"]["gate_mass"]["cnn"] == pytest.approx(gate_BNK[..., 3].mean().item(), abs=6e-5)


def test_models_without_a_gate_say_so(tiny_tower, tmp_path):
    with pytest.raises(UserError, match="plain CLIP .* no gate"):
        find_gated_tower(as_loaded(torch.nn.Linear(1, 1), tmp_path))
    tiny_tower.tove_fusion.gate = None
    with pytest.raises(UserError, match="concatenates .* no gate"):
        find_gated_tower(as_loaded(tiny_tower, tmp_path))


def test_an_image_that_cannot_be_used_is_named(tiny_tower, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(DataError, match="broken.png"):
        list(gates_of_images(as_loaded(tiny_tower, tmp_path), [tmp_path / "broken.png"]))
    Image.new("RGB", (60000, 1)).save(tmp_path / "strip.png")
    with pytest.raises(DataError, match=r"strip.png.*too elongated"):
        list(gates_of_images(as_loaded(tiny_tower, tmp_path), [tmp_path / "strip.png"]))
