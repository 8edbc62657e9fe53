"""LLaVA on a machine without CUDA.

LLaVA's evaluation modules write `.cuda()` and `device="cuda"` into their code. Where there is no such device, and only
for the time of a run, those calls mean the CPU; nothing of torch or of LLaVA is changed.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class CudaMeansCpu(TorchFunctionMode):
    """Within it, a tensor that is sent to `cuda` stays on the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.cuda:
            return args[0]
        if _is_cuda(kwargs.get("device")):
            kwargs["device"] = "cpu"
        return func(*("cpu" if _is_cuda(arg) else arg for arg in args), **kwargs)


@contextlib.contextmanager
def cuda_or_cpu() -> Iterator[None]:
    """Nothing where there is CUDA; else `CudaMeansCpu`, and says so."""
    if torch.cuda.is_available():
        yield
        return
    print("tove_lvlm: no CUDA device here, so LLaVA's `cuda` calls run on the CPU, slowly", file=sys.stderr, flush=True)
    with CudaMeansCpu():
        yield


def _is_cuda(value: Any) -> bool:
    is_device = isinstance(value, torch.device) and value.type == "cuda"
    return is_device or (isinstance(value, str) and value.partition(":")[0] == "cuda")
