"""A compiler that is missing is named before a run begins."""

import pytest
import torch

from tove_lvlm.train.compiler import compiler_problem

CPU = torch.device("cpu")


def test_a_machine_without_a_cpp_compiler(monkeypatch):
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", (None, "no-such-compiler"))
    problem = compiler_problem(CPU)
    assert problem.startswith("no C++ compiler (")
    assert "\n" not in problem


def test_a_machine_without_triton(monkeypatch):
    from torch.utils import _triton

    monkeypatch.setattr(_triton, "has_triton", lambda: False)
    assert compiler_problem(torch.device("cuda")) == "Triton is not installed, or does not know this cuda device"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_machine_with_a_gpu_has_what_it_takes():
    assert compiler_problem(torch.device("cuda")) is None
