"""The family `timm`: any timm backbone by name."""
