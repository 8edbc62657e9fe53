"""The convolutions' weights of an ONNX graph, in the order in which it runs them.

Shapes: O output channels, I input channels, k kernel side.
"""

import os

import torch

from .... import storage
from ....registry import require


def read_convolutions(path: str | os.PathLike[str]) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """(weight, bias or None) of every convolution, transposed ones included.

    A bias is an input of the convolution, or a constant of O numbers that is added to its result, as Paddle exports it.

    Args:
        path: File.

    Raises:
        ImportError: The package `onnx` is absent.
        WeightsError: The file is truncated or no ONNX graph.
    """
    onnx = require("onnx", extra="text")
    try:
        graph = onnx.load(os.fspath(path)).graph
    except Exception as error:  # protobuf's own, which depends on its implementation
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise storage.WeightsError(f"weights `{os.fspath(path)}` are truncated or no ONNX graph: {reason}") from error
    constants = {item.name: item for item in graph.initializer}
    alias = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}

    def origin(name: str) -> str:
        while name in alias:
            name = alias[name]
        return name

    def tensor(name: str) -> torch.Tensor:
        return torch.from_numpy(onnx.numpy_helper.to_array(constants[origin(name)]).copy())

    added = {}
    for node in graph.node:
        if node.op_type == "Add":
            for one, other in (tuple(node.input), tuple(node.input)[::-1]):
                if origin(other) in constants:
                    added[origin(one)] = other
    convolutions = []
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            bias = node.input[2] if len(node.input) > 2 else added.get(node.output[0])
            convolutions.append((tensor(node.input[1]), None if bias is None else tensor(bias).flatten()))
    return convolutions
