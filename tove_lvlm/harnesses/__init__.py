"""Evaluation harnesses as they are published: our models and tasks among theirs, nothing of theirs edited."""
