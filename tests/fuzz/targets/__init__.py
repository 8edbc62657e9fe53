"""The targets by name; a file each."""

from . import answers, checkpoints, configs, images, rows, server

TARGETS = {module.TARGET.name: module.TARGET for module in (configs, rows, answers, checkpoints, images, server)}
"""Name -> target."""
