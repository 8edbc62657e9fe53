"""The tiny world, whose YAMLs are read."""

from helpers.llava_runs import shared_world, world

__all__ = ["shared_world", "world"]
