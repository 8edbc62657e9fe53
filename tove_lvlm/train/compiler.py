"""Whether `torch.compile` can build code on this machine, asked before it is used.

It compiles at the first call, deep in a run, and what it raises there is a page long.

See docs/design.md, "Speed of the experts".
"""

import torch


def compiler_problem(device: torch.device) -> str | None:
    """Why `torch.compile` cannot build code for a device, in a few words; None where nothing is known to be missing.

    Args:
        device: A CPU needs a C++ compiler, a GPU Triton.
    """
    try:
        if device.type == "cpu":
            from torch._inductor.cpp_builder import get_cpp_compiler

            get_cpp_compiler()
        else:
            from torch.utils._triton import has_triton

            if not has_triton():
                return f"Triton is not installed, or does not know this {device.type} device"
    except Exception as error:  # of torch's own kinds, and what is imported here is not of its public interface
        first = str(error).strip().split("\n")[0] or type(error).__name__
        return f"no C++ compiler ({first})" if device.type == "cpu" else f"no Triton ({first})"
    return None
