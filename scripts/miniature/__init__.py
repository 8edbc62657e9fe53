"""One file per stage of `scripts/build_miniature.py`."""
