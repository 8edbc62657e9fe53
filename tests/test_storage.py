"""Reading, strict loading, fingerprints."""

import hashlib
import json

import pytest
import torch
from torch import nn

from tove_lvlm import storage
from tove_lvlm.config import UserError
from tove_lvlm.storage import MissingWeightsError, WeightsError

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2], dtype=torch.int64)}


# ---- reading ----


def test_tensors_round_trip_with_shared_memory_and_strides(tmp_path):
    shared = torch.arange(4.0)
    tensors = {**TENSORS, "s": shared, "t": shared, "u": torch.arange(6.0).view(2, 3).T}
    storage.save_tensors(tmp_path / "w.safetensors", tensors, metadata={"step": "3"})
    loaded = storage.load_tensors(tmp_path / "w.safetensors")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"state_dict": t, "epoch": 3}, lambda t: {"model": t}])
def test_torch_files(tmp_path, wrap):
    torch.save(wrap(TENSORS), tmp_path / "w.pth")
    loaded = storage.load_tensors(tmp_path / "w.pth")
    assert all(torch.equal(loaded[key], TENSORS[key]) for key in TENSORS)


class Evil:
    """Unpickling it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_nothing_is_unpickled(tmp_path):
    torch.save({"a": torch.ones(1), "evil": Evil(str(tmp_path / "trace"))}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="w.pth.*weights_only=True"):
        storage.load_tensors(tmp_path / "w.pth")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("keep", [0, 7, 0.5, 0.99])
def test_truncated_files_are_named(tmp_path, name, keep):
    path = tmp_path / name
    big = {"a": torch.randn(100, 100)}
    torch.save(big, path) if name.endswith("pth") else storage.save_tensors(path, big)
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    with pytest.raises(WeightsError, match=name):
        storage.load_tensors(path)


def test_what_is_no_dictionary_of_tensors(tmp_path):
    torch.save([1, 2], tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="w.pth.*dictionary of tensors, found list"):
        storage.load_tensors(tmp_path / "w.pth")


def test_folders_and_shards(tmp_path):
    for index, key in enumerate(TENSORS):
        storage.save_tensors(tmp_path / f"part{index}.safetensors", {key: TENSORS[key]})
    weight_map = {key: f"part{index}.safetensors" for index, key in enumerate(TENSORS)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert storage.load_tensors(tmp_path).keys() == TENSORS.keys()
    (tmp_path / "part1.safetensors").unlink()
    with pytest.raises(MissingWeightsError, match="part1.safetensors"):
        storage.load_tensors(tmp_path)


def test_one_format_is_chosen_safetensors_first(tmp_path):
    for name in reversed(storage.STANDARD_NAMES):
        (tmp_path / name).touch()
        assert storage.weight_files(tmp_path) == [tmp_path / name]
    assert [name.endswith(".safetensors") for name in storage.STANDARD_NAMES] == [True, True, False, False]


def test_a_file_of_another_name_is_pointed_out(tmp_path):
    (tmp_path / "depth.pth").touch()
    with pytest.raises(MissingWeightsError, match="expected model.safetensors or .*it has depth.pth, which `file` can"):
        storage.weight_files(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": "../x.safetensors"}}'])
def test_an_index_that_is_none(tmp_path, content):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(WeightsError, match=r"index.json` (is no index of shards|holds a list; expected)"):
        storage.weight_files(tmp_path)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_check_whole_sees_a_download_that_was_cut_off(tmp_path, name):
    path = tmp_path / name
    big = {"a": torch.randn(100, 100), "b": torch.ones(1)}
    torch.save(big, path) if name.endswith("pth") else storage.save_tensors(path, big, metadata={"step": "3"})
    storage.check_whole(path)
    content = path.read_bytes()
    for size in (0, 7, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        if size != 7 or name == "w.safetensors":  # seven bytes could be an older torch file
            with pytest.raises(WeightsError, match=rf"`{path}` \({size} bytes\) are truncated"):
                storage.check_whole(path)


def test_missing_weights_are_missing_files_and_users_errors(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError) as caught:
            storage.load_tensors(path)
        assert isinstance(caught.value, UserError)
        assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("weight", "told"),
    [
        (torch.tensor([[1.0, float("nan"), 0.0]]), "`weight` holds NaN or infinity"),
        (torch.tensor([[1.0, float("inf"), 0.0]]), "`weight` holds NaN or infinity"),
        (torch.tensor([[1, 2, 3]]), "`weight` is stored as torch.int64; expected floating point"),
    ],
)
def test_weights_that_are_no_numbers_are_refused_and_nothing_changes(weight, told):
    module = nn.Linear(3, 1)
    before = module.weight.detach().clone()
    with pytest.raises(WeightsError, match=f"weights `w.pth`: {told}"):
        storage.load_strict(module, {"weight": weight, "bias": torch.zeros(1)}, where="w.pth")
    assert torch.equal(module.weight, before)


def test_load_strict_names_file_and_keys_and_changes_nothing():
    module = nn.Linear(3, 2)
    before = module.weight.clone()
    with pytest.raises(WeightsError, match=r"`w.pth`.*1 missing \(bias\); 1 unexpected \(bios\); 1 of another shape"):
        storage.load_strict(module, {"weight": torch.zeros(2, 4), "bios": torch.zeros(2)}, where="w.pth")
    assert torch.equal(module.weight, before)
    storage.load_strict(module, {"weight": torch.ones(2, 3).half(), "bias": torch.zeros(2)}, where="w.pth")
    assert torch.equal(module.weight, torch.ones(2, 3))
    assert module.weight.dtype == torch.float32


# ---- fingerprints ----


def test_fingerprint_of_a_file_is_its_sha256(tmp_path):
    path = tmp_path / "model.safetensors"
    storage.save_tensors(path, TENSORS)
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert storage.fingerprint(path) == storage.fingerprint(tmp_path) == expected
    storage.save_tensors(path, {**TENSORS, "a": TENSORS["a"] + 1})
    assert storage.fingerprint(path) != expected


def test_fingerprint_of_tensors_sees_names_shapes_dtypes_and_values():
    prints = {
        storage.fingerprint(tensors)
        for tensors in (
            TENSORS,
            {**TENSORS, "a": TENSORS["a"].view(3, 2)},
            {**TENSORS, "a": TENSORS["a"] + 1},
            {**TENSORS, "b": TENSORS["b"].int()},
            {"c": TENSORS["a"], "b": TENSORS["b"]},
        )
    }
    assert len(prints) == 5
    assert storage.fingerprint(dict(reversed(TENSORS.items()))) == storage.fingerprint(TENSORS)
    assert storage.fingerprint({"a": torch.ones(2, dtype=torch.bfloat16)})


def test_json(tmp_path):
    storage.save_json(tmp_path / "x.json", {"a": [1, "é"]})
    assert storage.load_json(tmp_path / "x.json") == {"a": [1, "é"]}
    storage.save_json(tmp_path / "x.json", {"a": "half of a pair: \ud83d", "b": "é"})
    assert storage.load_json(tmp_path / "x.json") == {"a": "half of a pair: \ud83d", "b": "é"}
    for content, found in (("[]", "holds a list"), ("null", "holds a NoneType"), ("9" * 5000, "not readable as JSON")):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(WeightsError, match=f"x.json.*{found}"):
            storage.load_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(WeightsError, match="x.json.*not readable as JSON"):
        storage.load_json(tmp_path / "x.json")
    with pytest.raises(MissingWeightsError, match="y.json"):
        storage.load_json(tmp_path / "y.json")
