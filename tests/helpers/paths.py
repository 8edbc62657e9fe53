"""Where things lie."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
SHARED = ROOT.parent / "shared" / "data"
"""Published data files, beside the checkout where there are any."""
