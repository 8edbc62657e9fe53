"""The kill suite: the package's commands killed at random moments, run again, and compared with undisturbed runs.

python -m tests.kill --runs 100 [--seed N] [--only COMMAND ...] [--json FILE]
"""
