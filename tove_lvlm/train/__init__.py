"""The two training stages: typed configuration, stages, trainer, checkpoints and guards.

See docs/design.md, "Training".
"""
