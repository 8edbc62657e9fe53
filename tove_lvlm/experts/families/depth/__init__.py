"""The family `depth`: depth estimators of transformers (DPT, Depth Anything V2)."""
