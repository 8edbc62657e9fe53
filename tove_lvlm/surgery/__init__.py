"""What is done to a trained tower: see who is used, detach, attach, merge.

See docs/design.md, "Detach and attach".
"""
