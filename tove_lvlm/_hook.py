"""Register the tower as soon as transformers is there, without importing transformers. Our choice.

`tove --help` must answer within a second and transformers takes four to import, so each registration is tied to the
import of the transformers module that holds the auto class: a finder on `sys.meta_path` lets the ordinary machinery
find and run that module and then imports the tower's module whose last act is to register its class. It takes itself
off the path when it has done so for all of them.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from types import ModuleType

# Module of transformers -> module of the tower to import once that has been imported.
_WATCHED = {
    "transformers.models.auto.configuration_auto": "tove_lvlm.tower.configuration",
    "transformers.models.auto.modeling_auto": "tove_lvlm.tower.modeling",
    "transformers.models.auto.image_processing_auto": "tove_lvlm.tower.image_processing",
}


def register_when_imported() -> None:
    """Register with each of transformers' auto classes now when it is loaded, else when it is. Idempotent."""
    loaded = [name for name in _WATCHED if name in sys.modules]
    awaited = set(_WATCHED) - set(loaded)
    # First the finder: the tower's own modules, imported below, may be what imports an awaited one.
    if awaited and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(awaited))
    for name in loaded:
        importlib.import_module(_WATCHED[name])


class _Finder(importlib.abc.MetaPathFinder):
    """Finds nothing of its own: wraps the loader of each watched module."""

    def __init__(self, awaited: set[str]):
        self.awaited = awaited

    def find_spec(self, fullname: str, path=None, target=None) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self.awaited:
            return None
        self.awaited.discard(fullname)  # first, so that the search below does not come back here
        if not self.awaited:
            sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """Runs the module as its own loader would and registers after it."""

    def __init__(self, inner: importlib.abc.Loader):
        self._inner = inner

    def __getattr__(self, name: str):
        return getattr(self._inner, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._inner.exec_module(module)
        # Where the tower's module itself caused this import, it is half imported here and registers when it is done.
        importlib.import_module(_WATCHED[module.__name__])
