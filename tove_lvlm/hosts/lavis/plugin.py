"""Old name of `tove_lvlm.hosts.lavis.register`."""

from ...config import warn_deprecated
from .register import register

__all__ = ["register"]

warn_deprecated("`tove_lvlm.hosts.lavis.plugin` is deprecated: `register` is in `tove_lvlm.hosts.lavis`")
