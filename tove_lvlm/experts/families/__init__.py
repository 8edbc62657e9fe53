"""The families of experts, one folder each: `config.py` holds its fields in a YAML, `model.py` its network.

A folder is found by its name, which is the family's (`EXPERT_CONFIGS` in schema.py, `EXPERTS` in base.py).
"""
