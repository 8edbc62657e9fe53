"""The family `transformers`: vision encoders of transformers."""
