"""Scorers: texts and gold labels in, numbers out. They know no task, no file and no model; no torch, no numpy."""
