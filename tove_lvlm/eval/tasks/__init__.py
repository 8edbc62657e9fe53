"""The benchmarks; importing this package fills `TASKS`. Nothing heavy is imported."""

from . import coco_caption, gqa, nocaps, pope, textvqa, vizwiz, vqav2, vsr

__all__ = ["coco_caption", "gqa", "nocaps", "pope", "textvqa", "vizwiz", "vqav2", "vsr"]
