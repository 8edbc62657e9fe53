"""Modules of earlier versions under their old names: still imported, each with one warning.

Nothing is looked up here unless a name was not found elsewhere.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from types import ModuleType

MOVED = {
    "lvlm.batching": ("inference.batching",),
    "lvlm.chat": ("inference.chat",),
    "lvlm.config": ("config.model",),
    "lvlm.graft": ("surgery.graft",),
    "lvlm.likelihood": ("inference.likelihood",),
    "lvlm.loading": ("checkpoints",),
    "stage": ("train.stage", "config.loop"),
    "surgery.merge": ("recipes.merge", "config.merge"),
    "tower.configuration_yaml": ("tower.from_yaml", "config.tower"),
    "train.config": ("config.llava",),
}
"""Name of 0.1.0 within this package -> where what it held is now."""
_PACKAGE = __name__.rpartition(".")[0]


class OldNames(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of MOVED; what they hold are the very objects of the new modules."""

    def find_spec(self, fullname: str, path=None, target=None) -> importlib.machinery.ModuleSpec | None:
        if fullname.removeprefix(f"{_PACKAGE}.") not in MOVED:
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        names = [f"{_PACKAGE}.{name}" for name in MOVED[module.__name__.removeprefix(f"{_PACKAGE}.")]]
        advice = " and ".join(f"`{name}`" for name in names)
        warnings.warn(f"`{module.__name__}` is deprecated: what it held is in {advice}", FutureWarning, stacklevel=2)
        for name in names:
            new = vars(importlib.import_module(name))
            module.__dict__.update({key: value for key, value in new.items() if not key.startswith("__")})


def keep_old_names() -> None:
    """Put the finder last on the path. Idempotent."""
    if not any(isinstance(finder, OldNames) for finder in sys.meta_path):
        sys.meta_path.append(OldNames())
