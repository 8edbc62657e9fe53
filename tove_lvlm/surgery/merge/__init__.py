"""Merge a tower's experts into one plain CLIP (ToVE-lite): a student, at first that CLIP, learns `t_fuse`."""

from .stage import MergeStage

__all__ = ["MergeStage"]
