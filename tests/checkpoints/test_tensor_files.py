"""Rewritten safetensors files have the bytes that safetensors' own writer gives."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tove_lvlm.checkpoints.tensor_files import fingerprint, read_header, write_file
from tove_lvlm.storage import WeightsError


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    dtypes = {"b": torch.bfloat16, "a": torch.float32, "count": torch.int64, "flag": torch.bool, "é": torch.float16}
    values = {name: torch.randn(3, 5, generator=generator).to(dtype) for name, dtype in dtypes.items()}
    return values | {"scalar": torch.tensor(1.5), "empty": torch.zeros(0, 4)}


def test_leaving_tensors_out_gives_the_bytes_of_a_fresh_file(tensors, tmp_path):
    save_file(tensors, tmp_path / "whole", metadata={"format": "pt"})
    header = read_header(tmp_path / "whole")
    assert {name: at.shape for name, at in header.tensors.items()} == {n: tuple(t.shape) for n, t in tensors.items()}
    assert {name: at.numel for name, at in header.tensors.items()} == {n: t.numel() for n, t in tensors.items()}
    for left_out in ([], ["a"], ["é", "scalar"], ["b", "count", "empty"]):
        kept = {name: at for name, at in header.tensors.items() if name not in left_out}
        path = tmp_path / f"without-{len(left_out)}"
        write_file(path, kept, header.metadata)
        save_file({name: tensors[name] for name in kept}, tmp_path / "expected", metadata={"format": "pt"})
        assert path.read_bytes() == (tmp_path / "expected").read_bytes()


def test_tensors_of_two_files_come_together(tensors, tmp_path):
    save_file(tensors, tmp_path / "whole", metadata={"format": "pt"})
    save_file({"a": tensors["a"]}, tmp_path / "a")
    save_file({name: tensor for name, tensor in tensors.items() if name != "a"}, tmp_path / "rest")
    parts = {**read_header(tmp_path / "a").tensors, **read_header(tmp_path / "rest").tensors}
    whole = read_header(tmp_path / "whole")
    write_file(tmp_path / "again", {name: parts[name] for name in whole.tensors}, whole.metadata)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "whole").read_bytes()
    assert load_file(tmp_path / "again").keys() == tensors.keys()


def test_large_tensors_pass_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("tove_lvlm.checkpoints.tensor_files._CHUNK", 7)
    value = torch.arange(100.0)
    save_file({"x": value}, tmp_path / "x")
    write_file(tmp_path / "y", read_header(tmp_path / "x").tensors, None)
    assert torch.equal(load_file(tmp_path / "y")["x"], value)


def test_fingerprint_sees_name_shape_dtype_and_bytes(tmp_path):
    base = {"x": torch.arange(4.0)}
    variants = [base, {"y": base["x"]}, {"x": base["x"].view(2, 2)}, {"x": base["x"].int()}, {"x": base["x"] + 1}]
    prints = []
    for index, variant in enumerate(variants):
        save_file(variant, tmp_path / str(index))
        prints.append(fingerprint(read_header(tmp_path / str(index)).tensors))
    assert len(set(prints)) == len(variants)
    save_file({"first": torch.zeros(3), **base}, tmp_path / "elsewhere")
    assert fingerprint({"x": read_header(tmp_path / "elsewhere").tensors["x"]}) == prints[0]


def test_truncated_and_foreign_files_are_named(tensors, tmp_path):
    save_file(tensors, tmp_path / "whole")
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:-1])
    (tmp_path / "text").write_text("not weights at all")
    (tmp_path / "short").write_bytes(b"abc")
    for name in ("cut", "text", "short", "absent"):
        with pytest.raises(WeightsError, match=f"{name}` are truncated or not safetensors"):
            read_header(tmp_path / name)
