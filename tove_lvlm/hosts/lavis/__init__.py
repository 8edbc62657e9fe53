"""The tower inside unmodified LAVIS: any BLIP-2 architecture takes `vit_model: tove:PATH`, and `arch: tove_caption` and
`arch: tove_vqa` are the base model.

    from tove_lvlm.hosts import lavis
    lavis.register()            # before or after `import lavis`; idempotent

or, for LAVIS's own training and evaluation with the plugin in place:

    python -m tove_lvlm.hosts.lavis train    --cfg-path projects/lavis/blip2_stage1.yaml --options run.max_epoch=2
    python -m tove_lvlm.hosts.lavis evaluate --cfg-path ...

See docs/hosts.md, "LAVIS".
"""

from .register import register

__all__ = ["EXTRA", "KEY", "register"]

EXTRA, KEY = "lavis", "vit_model"
