"""The two training stages of DESIGN.md section 5: typed configuration, stages, trainer, checkpoints and guards."""
