"""Fuzzing: what users and other programs give, broken in every way that hypothesis thinks of.

`property.py` has the one property, `targets/` a file for each kind of input, `mutate.py` how inputs are broken. Long
runs: `python -m tests.fuzz --help`.
"""
