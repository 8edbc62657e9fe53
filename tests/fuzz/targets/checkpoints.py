"""Saved models of every form with one file changed, through `open_checkpoint`, which every command opens them with.

Commands that write one (`tove export`, `tove detach`) measure or serialise for seconds: what they write with,
`save_with_experts`, is called instead. A folder that is accepted gives exactly the tensors that its files hold; where
tensors and configuration are those of the unchanged folder, so are the logits.
"""

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from safetensors.torch import load_file

from helpers.tiny_checkpoints import logits
from helpers.tiny_towers import pixels
from tove_lvlm.checkpoints import LoadedCheckpoint, open_checkpoint
from tove_lvlm.checkpoints.base import save_with_experts

from .. import worlds
from ..mutate import byte_edits, edited, edited_bytes, json_edits, rarely
from ..property import Target

KINDS = ("tower", "stage1", "adapter", "merged", "sharded", "base")
_VALUES = (
    "model.safetensors",
    "../model.safetensors",
    "llava",
    "bert",
    "F64",
    "BF16",
    "BOOL",
    [0, 4],
    [0, 0],
    [4, 0],
    [32, 32],
    [2**40],
    {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
    {"auto_map": {"AutoConfig": "evil.Config"}},
    {"text_config": {}},
    {"vision_config": {"model_type": "tove"}},
)
CASES = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(KINDS),
        "file": st.integers(0, 20),
        "edits": json_edits(*_VALUES, max_size=2),
        "bytes": st.just([]) | byte_edits(2, (b"\xff" * 16, b"\0\0\xc0\x7f")),
        "missing": rarely(st.just(True), False),
    }
)


def _folder(kind: str) -> Path:
    return worlds.base_model() if kind == "base" else worlds.checkpoints()[kind]


def _write(case: dict[str, Any], folder: Path) -> None:
    shutil.copytree(_folder(case["kind"]), folder / "model")
    files = sorted(path for path in (folder / "model").rglob("*") if path.is_file())
    file = files[case["file"] % len(files)]
    content = file.read_bytes()
    if case["missing"]:
        file.unlink()
        return
    if file.suffix == ".json":
        content = json.dumps(edited(json.loads(content), case["edits"])).encode()
    elif file.suffix == ".safetensors":
        length = int.from_bytes(content[:8], "little")
        header = json.dumps(edited(json.loads(content[8 : 8 + length]), case["edits"])).encode()
        header += b" " * (-len(header) % 8)
        content = len(header).to_bytes(8, "little") + header + content[8 + length :]
    file.write_bytes(edited_bytes(content, case["bytes"]))


def _act(case: dict[str, Any], inputs: Path, output: Path) -> LoadedCheckpoint:
    loaded = open_checkpoint(inputs / "model")
    if loaded.tower is not None:
        save_with_experts(loaded, output)
    return loaded


def _accepted(case: dict[str, Any], inputs: Path, output: Path, loaded: LoadedCheckpoint) -> None:
    base = _base(case["kind"])
    state, held = loaded.model.state_dict(), _held(inputs / "model")
    for name, parameter in loaded.model.named_parameters():
        assert not parameter.is_meta, f"{name} has no values"
        assert bool(torch.isfinite(parameter).all()), f"{name} is not finite"
    for name, stored in base["stored"].items():
        if name in state and stored in held:
            assert torch.equal(state[name], held[stored].to(state[name].dtype)), f"{name} is not what its file holds"
    same = state.keys() == base["state"].keys()
    same = same and all(torch.equal(tensor, base["state"][name]) for name, tensor in state.items())
    if same and loaded.model.config.to_dict() == base["config"]:
        assert torch.equal(_answer(loaded), base["answer"]), "other logits from the same tensors and configuration"
    if output.is_dir():
        written = _held(output)
        assert written.keys() == held.keys()
        assert all(torch.equal(written[name], tensor) for name, tensor in held.items()), "another tensor was written"


@functools.cache
def _base(kind: str) -> dict[str, Any]:
    """The unchanged folder's model: tensors, configuration and answer, and under which names its files hold them."""
    loaded, held = open_checkpoint(_folder(kind)), _held(_folder(kind))
    state = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    stored = {
        name: next(
            (key for key, other in held.items() if tensor.dtype == other.dtype and torch.equal(tensor, other)), None
        )
        for name, tensor in state.items()
    }
    stored = {name: key for name, key in stored.items() if key is not None}
    assert len(stored) >= 0.5 * len(held), "too few of the files' tensors are found in the model"
    return {"state": state, "stored": stored, "config": loaded.model.config.to_dict(), "answer": _answer(loaded)}


def _held(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder's safetensors files, read by safetensors itself."""
    files = sorted(folder.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def _answer(loaded: LoadedCheckpoint) -> torch.Tensor:
    """Logits of a question about a picture; a tower's tokens."""
    with torch.no_grad():
        if loaded.kind == "tower":
            return loaded.model(pixels(1)).last_hidden_state
        if loaded.kind == "encoder_decoder":
            ids_BT = torch.tensor([[5, 6, 7]])
            return loaded.model(pixel_values=pixels(1), decoder_input_ids=ids_BT).logits
        return logits(loaded.model)


TARGET = Target(
    name="checkpoints",
    cases=CASES,
    write=_write,
    act=_act,
    accepted=_accepted,
    shared=lambda: [worlds.checkpoints()["tower"].parent],
    deadline=60.0,
)
