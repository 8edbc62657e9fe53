"""What a YAML may hold: the schemas of all kinds of YAML, and how a file is read and checked.

Nothing here imports torch: a mistake shows before it is loaded (tests/config/test_light.py).
"""

from ..errors import ConfigError, UserError, exit_on_error
from .parsing import (
    DERIVED,
    Deprecated,
    load,
    parse,
    present_names,
    read_yaml,
    save_yaml,
    to_dict,
    warn_deprecated,
)

__all__ = [
    "DERIVED",
    "ConfigError",
    "Deprecated",
    "UserError",
    "exit_on_error",
    "load",
    "parse",
    "present_names",
    "read_yaml",
    "save_yaml",
    "to_dict",
    "warn_deprecated",
]
