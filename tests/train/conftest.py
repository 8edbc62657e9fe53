"""The tiny world, and running LLaVA's stages on it: the engine is tested by what they train."""

from helpers.llava_runs import shared_world, train, world

__all__ = ["shared_world", "train", "world"]
