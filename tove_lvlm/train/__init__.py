"""The training engine: command line, run, loop, checkpoints, guards. What is trained is given by a recipe (recipes/).

See docs/design.md, "Training".
"""
