"""LLaVA-format data: conversations, images, dataset, collator and samplers (LLaVA-1.5's recipe; the paper follows it).

Import the modules themselves (`from tove_lvlm.data.dataset import ToVEDataset`); this file stays empty so that the
error class and the constants cost nothing to import.
"""
