"""LLaVA models with our tower: assembly, LoRA, light and merged folders, chat. DESIGN.md section 3, floor 4."""
