"""Small networks as files of other runtimes: one 3 x 3 convolution in ONNX and in TFLite, with the same weights."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

SIZE, CHANNELS = 12, 5


def kernel(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(CHANNELS, 3, 3, 3) and (CHANNELS,) float32."""
    random = np.random.default_rng(seed)
    return random.standard_normal((CHANNELS, 3, 3, 3)).astype(np.float32), random.standard_normal(CHANNELS).astype("f")


def convolution(pixels_B3HW: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """What these networks compute, in torch."""
    weight, bias = map(torch.from_numpy, kernel(seed))
    return F.conv2d(pixels_B3HW, weight, bias, padding=1)


def make_onnx(file: Path, batch: int | str = "batch", size: int | str = "side", seed: int = 0) -> Path:
    """An ONNX graph with three outputs: `grid` (B, C, h, w), `last` (B, h, w, C), and `tokens` (B, 1 + h w, C), whose
    class token is all ones.
    """
    from onnx import TensorProto, checker, helper, numpy_helper, save

    weight, bias = kernel(seed)
    constants = {"weight": weight, "bias": bias, "class": np.ones((1, 1, CHANNELS), np.float32)}
    nodes = [
        helper.make_node("Conv", ["pixels", "weight", "bias"], ["grid"], pads=[1, 1, 1, 1]),
        helper.make_node("Transpose", ["grid"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Constant", [], ["shape"], value=numpy_helper.from_array(np.array([1, -1, CHANNELS]))),
        helper.make_node("Reshape", ["last", "shape"], ["patches"]),  # of one image
        helper.make_node("Concat", ["class", "patches"], ["tokens"], axis=1),
    ]
    outputs = {"grid": 4, "last": 4} | ({"tokens": 3} if batch == 1 else {})
    graph = helper.make_graph(
        nodes if batch == 1 else nodes[:2],
        "convolution",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank) for name, rank in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    save(model, file)
    return file


def make_tflite(file: Path, seed: int = 0) -> Path:
    """A TFLite model: (1, SIZE, SIZE, 3) to `grid` (1, SIZE, SIZE, CHANNELS)."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    weight, bias = kernel(seed)
    arrays = {"weight": weight.transpose(0, 2, 3, 1).copy(), "bias": bias}
    shapes = {"pixels": [1, SIZE, SIZE, 3], "grid": [1, SIZE, SIZE, CHANNELS]}
    model, graph, operator = schema.ModelT(), schema.SubGraphT(), schema.OperatorT()
    model.version, model.description, model.subgraphs, model.buffers = 3, "convolution", [graph], [schema.BufferT()]
    graph.name, graph.tensors = "main", []
    for name in ("pixels", "weight", "bias", "grid"):
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.buffer = name, schema.TensorType.FLOAT32, len(model.buffers)
        tensor.shape = list(arrays[name].shape) if name in arrays else shapes[name]
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(arrays[name].tobytes(), np.uint8) if name in arrays else None
        model.buffers.append(buffer)
        graph.tensors.append(tensor)
    code, options = schema.OperatorCodeT(), schema.Conv2DOptionsT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CONV_2D
    code.version = 1
    options.padding, options.strideH, options.strideW = schema.Padding.SAME, 1, 1
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1, 2], [3]
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.Conv2DOptions, options
    graph.inputs, graph.outputs, graph.operators, model.operatorCodes = [0], [3], [operator], [code]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    file.write_bytes(bytes(builder.Output()))
    return file
