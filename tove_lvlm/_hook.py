"""Register the tower as soon as transformers is there, without importing transformers.

`tove --help` must answer within a second and transformers takes four to import, so each registration waits for the
transformers module that holds the auto class: a finder on `sys.meta_path` lets the ordinary machinery find and run
transformers' modules, and when the outermost of them is done (inside, half of them are half imported, CLIP perhaps
among them) it imports the tower's modules, whose last act is to register their class. It takes itself off the path when
that is done for all of them.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import threading
from types import ModuleType

# Module of transformers -> module of the tower to import once that has been imported.
_WATCHED = {
    "transformers.models.auto.configuration_auto": "tove_lvlm.tower.configuration",
    "transformers.models.auto.modeling_auto": "tove_lvlm.tower.modeling",
    "transformers.models.auto.image_processing_auto": "tove_lvlm.tower.image_processing",
}

_PART_OF = ("transformers.", "tove_lvlm.tower.")


def register_when_imported() -> None:
    """Register with each of transformers' auto classes now when it is loaded, else when it is. Idempotent."""
    finder = next((finder for finder in sys.meta_path if isinstance(finder, _Finder)), None)
    if finder is None:
        finder = _Finder()
        sys.meta_path.insert(0, finder)
    finder.register()


class _Finder(importlib.abc.MetaPathFinder):
    """Finds nothing of its own: wraps the loader of each module of transformers and of the tower."""

    def __init__(self):
        self._awaited = list(_WATCHED)
        self._here = threading.local()

    def find_spec(self, fullname: str, path=None, target=None) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(_PART_OF) or getattr(self._here, "searching", None) == fullname:
            return None
        self._here.searching = fullname  # the search below comes back here
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._here.searching = None
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self)
        return spec

    def run(self, inner: importlib.abc.Loader, module: ModuleType) -> None:
        """Run a module, and after the outermost one register."""
        depth = getattr(self._here, "depth", 0)
        self._here.depth = depth + 1
        try:
            inner.exec_module(module)
        finally:
            self._here.depth = depth
        self.register()

    def register(self) -> None:
        """Import the tower's module for each auto class that is there, unless something is half imported."""
        if getattr(self._here, "depth", 0):
            return
        self._here.depth = 1
        try:
            while ready := [name for name in self._awaited if name in sys.modules]:
                self._awaited.remove(ready[0])
                importlib.import_module(_WATCHED[ready[0]])
        finally:
            self._here.depth = 0
        if not self._awaited and self in sys.meta_path:
            sys.meta_path.remove(self)


class _Loader(importlib.abc.Loader):
    """Runs a module as its own loader would, through the finder."""

    def __init__(self, inner: importlib.abc.Loader, finder: _Finder):
        self._inner, self._finder = inner, finder

    def __getattr__(self, name: str):
        return getattr(self._inner, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._finder.run(self._inner, module)
