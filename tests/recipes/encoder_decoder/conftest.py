"""The tiny world, and running the base model's stages on it."""

from helpers.base_runs import base_world, make_base_trainer, shared_base_world, train_base

__all__ = ["base_world", "make_base_trainer", "shared_base_world", "train_base"]
