"""Modules of earlier versions under their old names: still imported and run with `python -m`, each with one warning.

The finder comes first on the path: where a folder moved, a checkout that is brought up to date keeps its `__pycache__`,
and Python would take that for a package.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from types import CodeType, ModuleType

MOVED = {
    "eval.task": ("eval.tasks.base", "eval.io.items", "eval.io.find", "eval.io.problems", "eval.metrics.score"),
    "hosts.lavis.plugin": ("hosts.lavis.register",),
    "hosts.lmms_eval": ("harnesses.lmms_eval",),
    "hosts.vlmevalkit": ("harnesses.vlmevalkit",),
    "lvlm.batching": ("inference.batching",),
    "lvlm.chat": ("inference.chat",),
    "lvlm.config": ("config.model",),
    "lvlm.graft": ("surgery.graft",),
    "lvlm.likelihood": ("inference.responder", "inference.llava"),
    "lvlm.loading": ("checkpoints",),
    "stage": ("train.stage", "config.loop"),
    "surgery.merge": ("recipes.merge", "config.merge"),
    "surgery.merge.config": ("config.merge",),
    "tower.configuration_yaml": ("tower.from_yaml", "config.tower"),
    "train.config": ("config.llava",),
    "zero": ("sharding",),
}
"""Name of 0.1.0 within this package -> where what it held is now."""
_PACKAGE = __name__.rpartition(".")[0]


def new_names(fullname: str) -> list[str]:
    """Modules that hold what an old one held; what lay below a package that moved is below its first new place.

    Args:
        fullname: With this package's own name.

    Returns:
        Empty for a name that never was.
    """
    name = fullname.removeprefix(f"{_PACKAGE}.")
    if name in MOVED:
        return [f"{_PACKAGE}.{new}" for new in MOVED[name]]
    parents = (old for old in MOVED if name.startswith(f"{old}."))
    return [f"{_PACKAGE}.{MOVED[old][0]}{name.removeprefix(old)}" for old in parents]


class OldNames(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds the modules of MOVED; what they hold are the very objects of the new modules."""

    def find_spec(self, fullname: str, path=None, target=None) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(f"{_PACKAGE}.") or not (names := new_names(fullname)):
            return None
        new = importlib.util.find_spec(names[0])
        return new and importlib.util.spec_from_loader(
            fullname, self, is_package=new.submodule_search_locations is not None
        )

    def exec_module(self, module: ModuleType) -> None:
        names = new_names(module.__name__)
        if module.__name__.removeprefix(f"{_PACKAGE}.") in MOVED:
            advice = " and ".join(f"`{name}`" for name in names)
            message = f"`{module.__name__}` is deprecated: what it held is in {advice}"
            warnings.warn(message, FutureWarning, stacklevel=2)
        for name in names:
            new = vars(importlib.import_module(name))
            module.__dict__.update({key: value for key, value in new.items() if not key.startswith("__")})

    def get_code(self, fullname: str) -> CodeType:
        """For `python -m`."""
        run = f"import runpy; runpy.run_module({new_names(fullname)[0]!r}, run_name='__main__', alter_sys=True)"
        return compile(run, f"<{fullname}>", "exec")

    def get_source(self, fullname: str) -> None:
        """There is none."""


def keep_old_names() -> None:
    """Put the finder first on the path. Idempotent."""
    if not any(isinstance(finder, OldNames) for finder in sys.meta_path):
        sys.meta_path.insert(0, OldNames())
