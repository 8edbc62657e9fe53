"""The benchmarks; importing this package fills `TASKS`. Nothing heavy is imported."""

from . import gqa, pope, textvqa, vizwiz, vqav2, vsr

__all__ = ["gqa", "pope", "textvqa", "vizwiz", "vqav2", "vsr"]
