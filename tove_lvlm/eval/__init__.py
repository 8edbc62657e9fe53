"""Evaluation: questions in, scores out."""
