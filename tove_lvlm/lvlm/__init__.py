"""Models with our tower: LLaVA's, with LoRA, and the base model, an encoder with a decoder.

See docs/design.md, "LVLM checkpoints".
"""
