"""The tiny worlds of LLaVA's stages and of the base model, and runs of merging."""

from helpers.base_runs import base_world, shared_base_world, train_base
from helpers.llava_runs import shared_world, train, world

__all__ = ["base_world", "shared_base_world", "shared_world", "train", "train_base", "world"]
