"""Merge a tower's experts into one plain CLIP (ToVE-lite): a student, at first that CLIP, learns `t_fuse`.

Importing this brings no torch.
"""

from .stage import MERGE, MergeStage

__all__ = ["MERGE", "MergeStage"]
