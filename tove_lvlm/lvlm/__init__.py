"""LLaVA models with our tower: assembly, LoRA, light and merged folders, chat.

See docs/design.md, "LVLM checkpoints".
"""
