"""EfficientNet-Lite2 of ImageNet under timm's names, against the package's own code.

Both name the same layers in the same order. Pixels are (x - 127) / 128 over 0..255; timm's own are (x - 127.5) / 127.5.
"""

from pathlib import Path

import timm
import torch

from tove_lvlm import storage

ARCHITECTURE = "tf_efficientnet_lite2"
SIZE = 260
MEAN, STD = [127 / 255] * 3, [128 / 255] * 3
EGYPTIAN_CAT = 285


def convert(source: Path, folder: Path) -> None:
    """Write `model.safetensors` and `config.json` as timm's folders on the hub are.

    Args:
        source: The package's torch file.
        folder: To write into; it is there.

    Raises:
        WeightsError: The file is not this network's.
    """
    theirs = storage.load_tensors(source)
    ours = timm.create_model(ARCHITECTURE, pretrained=False).state_dict()
    shapes = [[tuple(tensor.shape) for tensor in state.values()] for state in (theirs, ours)]
    if shapes[0] != shapes[1]:
        raise storage.WeightsError(f"weights `{source}` are not those of {ARCHITECTURE}")
    storage.save_tensors(folder / "model.safetensors", dict(zip(ours, theirs.values(), strict=True)))
    pretrained = {"input_size": [3, SIZE, SIZE], "mean": MEAN, "std": STD, "num_classes": 1000}
    storage.save_json(
        folder / "config.json", {"architecture": ARCHITECTURE, "num_classes": 1000, "pretrained_cfg": pretrained}
    )


@torch.no_grad()
def check(reference: torch.nn.Module, folder: Path, picture_13HW: torch.Tensor) -> dict[str, object]:
    """Against the package's own network on one photograph.

    Args:
        reference: The package's network with the published weights.
        folder: What `convert` wrote.
        picture_13HW: RGB in 0..1, `SIZE` pixels a side: scikit-image's cat.

    Returns:
        `largest_difference` of the 1,000 logits, `top1` and its `probability`.
    """
    ours = timm.create_model(ARCHITECTURE, pretrained=False).eval()
    ours.load_state_dict(storage.load_tensors(folder))
    pixels = (picture_13HW * 255 - 127) / 128
    expected, found = reference.eval()(pixels), ours(pixels)
    return {
        "largest_difference": float((expected - found).abs().max()),
        "top1": int(found.argmax()),
        "probability": round(float(found.softmax(-1).max()), 3),
    }
