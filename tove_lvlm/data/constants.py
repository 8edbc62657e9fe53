"""Numbers and strings of LLaVA's data format (llava/constants.py), which trained models depend on."""

IGNORE_INDEX = -100
"""Label of a position that takes no part in the loss."""

IMAGE_TOKEN_INDEX = -200
"""Stands for one whole image in encoded ids; no vocabulary has it. The collator expands it."""

IMAGE_TOKEN = "<image>"
"""Marks the place of the image in a conversation's text."""

IMAGE_WORDS = 128
"""What LLaVA's length estimate counts for an image."""
