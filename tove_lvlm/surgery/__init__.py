"""What is done to a trained tower: see who is used, detach, attach, merge. DESIGN.md section 6."""
