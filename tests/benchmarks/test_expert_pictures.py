"""The picture of what experts see: a column for each, the photographs in colour, edges without."""

import sys

import expert_pictures
import numpy as np
import pytest
import torch
from PIL import Image

from tove_lvlm.experts import build_expert


def test_every_photograph_and_expert_has_its_place(tmp_path, monkeypatch, capsys):
    pytest.importorskip("rapidocr")
    torch.manual_seed(0)
    expert = build_expert({"name": "hed", "family": "hed", "image_size": 64})
    (tmp_path / "hed").mkdir()
    torch.save(expert.state_dict(), tmp_path / "hed" / "pytorch_model.bin")
    arguments = ["--hed", tmp_path / "hed", "--output", tmp_path / "maps", "--side", 64]
    monkeypatch.setattr(sys, "argv", ["expert_pictures.py", *map(str, arguments)])
    expert_pictures.main()
    assert capsys.readouterr().out.strip() == str(tmp_path / "maps.png")
    with Image.open(tmp_path / "maps.png") as picture:
        rgb_HW3 = np.asarray(picture.convert("RGB")).astype(int)
    height, width = rgb_HW3.shape[:2]
    assert width / height == pytest.approx(4 * 2.0 / (3 * 2.05), rel=0.01)
    photograph, hed, canny, text = np.array_split(rgb_HW3[height // 12 : height // 3], 4, axis=1)
    is_grey = [(column.max(-1) == column.min(-1)).all() for column in (photograph, hed, canny)]
    assert is_grey == [False, True, True]
    assert (text == 0).all(-1).mean() > 0.5
