"""onnxruntime as a function from pixels to a grid.

Shapes: B images, H W pixels, C channels, h w sides of the grid.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .... import storage
from ....config import ConfigError
from ....registry import require
from ...exported.arrays import Run, check_result, one_at_a_time, to_grid, to_input

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
}


def open_session(content: bytes, fields: Mapping[str, Any], threads: int, on_cuda: bool) -> Run:
    """As `ExportedConfig.open`, of an ONNX file's bytes."""
    onnxruntime = require("onnxruntime", extra="onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors; its warnings are about the graph of whoever exported it
    wanted = ["CUDAExecutionProvider"] * on_cuda + ["CPUExecutionProvider"]
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    try:
        session = onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # a class for each kind of failure, and RuntimeError
        raise storage.WeightsError(f"onnxruntime cannot read it: {_first_line(error)}") from error
    inputs, outputs = session.get_inputs(), [output.name for output in session.get_outputs()]
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in _TYPES:
        found = ", ".join(f"{item.name} {item.type} {item.shape}" for item in inputs)
        raise ConfigError(f"an expert's network takes one batch of images of four dimensions; this one takes {found}")
    name, dtype, result = inputs[0].name, np.dtype(_TYPES[inputs[0].type]), check_result(fields["result"], outputs)

    def run(pixels_B3HW: np.ndarray) -> np.ndarray:
        try:
            given = session.run([outputs[result]], {name: to_input(pixels_B3HW, fields["input_layout"], dtype)})[0]
        except Exception as error:  # as above: the graph refuses this size
            raise ConfigError(
                f"the network takes {inputs[0].shape} and refuses `image_size` {fields['image_size']}: "
                f"{_first_line(error)}"
            ) from error
        return to_grid(given, fields["output_layout"], outputs[result])

    return one_at_a_time(run) if inputs[0].shape[0] == 1 else run


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
