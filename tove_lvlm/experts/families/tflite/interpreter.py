"""LiteRT, TFLite's runtime, as a function from pixels to a grid.

Shapes: B images, H W pixels, C channels, h w sides of the grid.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .... import storage
from ....config import ConfigError
from ....registry import require
from ...exported.arrays import Run, check_result, one_at_a_time, to_grid, to_input


def open_interpreter(content: bytes, fields: Mapping[str, Any], threads: int) -> Run:
    """As `ExportedConfig.open`, of a TFLite file's bytes."""
    litert = require("ai_edge_litert.interpreter", extra="tflite")
    try:
        interpreter = litert.Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise storage.WeightsError(f"LiteRT cannot read it: {str(error).strip().splitlines()[0]}") from error
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    names = [output["name"] for output in outputs]
    if len(inputs) != 1 or len(inputs[0]["shape"]) != 4:
        found = ", ".join(f"{item['name']} {list(map(int, item['shape']))}" for item in inputs)
        raise ConfigError(f"an expert's network takes one batch of images of four dimensions; this one takes {found}")
    taken, dtype, result = inputs[0], np.dtype(inputs[0]["dtype"]), check_result(fields["result"], names)

    def run(pixels_1HW3: np.ndarray) -> np.ndarray:
        given = to_input(pixels_1HW3, fields["input_layout"], dtype)
        if given.shape != tuple(taken["shape"]):
            raise ConfigError(
                f"the network takes {list(map(int, taken['shape']))}, but `image_size` {fields['image_size']} and "
                f"`input_layout: {fields['input_layout']}` give {list(given.shape)}"
            )
        interpreter.set_tensor(taken["index"], given)
        interpreter.invoke()
        return to_grid(interpreter.get_tensor(outputs[result]["index"]), fields["output_layout"], names[result])

    return one_at_a_time(run)
