"""The parts of `benchmarks/miniature_study.py`."""
