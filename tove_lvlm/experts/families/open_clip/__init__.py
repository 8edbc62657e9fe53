"""The family `open_clip`: the visual trunk of any open_clip model."""
