"""The tiny world, and running LLaVA's stages on it: the engine is tested by what they train."""

from helpers.llava_runs import make_trainer, shared_world, train, world

__all__ = ["make_trainer", "shared_world", "train", "world"]
