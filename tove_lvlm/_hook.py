"""Do something as soon as another package has imported one of its modules, without importing that package.

Two uses. The tower registers itself with transformers: `tove --help` must answer within a second and transformers takes
four to import, so each registration waits for the transformers module that holds the auto class. And the harness
VLMEvalKit gets its model once it has made its own list of models (`harnesses/vlmevalkit`).
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import threading
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType

# Module of transformers -> module of the tower to import once that has been imported; its last act is to register.
_WATCHED = {
    "transformers.models.auto.configuration_auto": "tove_lvlm.tower.configuration",
    "transformers.models.auto.modeling_auto": "tove_lvlm.tower.modeling",
    "transformers.models.auto.image_processing_auto": "tove_lvlm.tower.image_processing",
}

_PART_OF = ("transformers.", "tove_lvlm.tower.")


def register_when_imported() -> None:
    """Register with each of transformers' auto classes now when it is loaded, else when it is. Idempotent."""
    for finder in sys.meta_path:
        if isinstance(finder, AfterImport) and finder.within == _PART_OF:
            finder.act()
            return
    actions = {module: partial(importlib.import_module, ours) for module, ours in _WATCHED.items()}
    AfterImport(actions, within=_PART_OF).install()


class AfterImport(importlib.abc.MetaPathFinder):
    """Calls functions once modules have been imported. Finds nothing of its own: it wraps the modules' loaders.

    The ordinary machinery finds and runs the modules. When the outermost of them is done (inside, half of them are half
    imported), the functions whose module is there by then are called, each once. After the last the finder takes itself
    off the path.

    Args:
        actions: Module -> what to call once it has been imported.
        within: Beginnings of the names of the modules that are wrapped, those of `actions` among them.
    """

    def __init__(self, actions: Mapping[str, Callable[[], object]], within: tuple[str, ...]):
        self.within = within
        self._awaited = dict(actions)
        self._here = threading.local()

    def install(self) -> None:
        """Put it first on the path, and act on what has been imported already."""
        sys.meta_path.insert(0, self)
        self.act()

    def find_spec(self, fullname: str, path=None, target=None) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(self.within) or getattr(self._here, "searching", None) == fullname:
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
        """Run a module, and after the outermost one act."""
        depth = getattr(self._here, "depth", 0)
        self._here.depth = depth + 1
        try:
            inner.exec_module(module)
        finally:
            self._here.depth = depth
        self.act()

    def act(self) -> None:
        """Call the function of each module that is there, unless something is half imported."""
        if getattr(self._here, "depth", 0):
            return
        self._here.depth = 1
        try:
            while ready := [name for name in self._awaited if name in sys.modules]:
                self._awaited.pop(ready[0])()
        finally:
            self._here.depth = 0
        if not self._awaited and self in sys.meta_path:
            sys.meta_path.remove(self)


class _Loader(importlib.abc.Loader):
    """Runs a module as its own loader would, through the finder."""

    def __init__(self, inner: importlib.abc.Loader, finder: AfterImport):
        self._inner, self._finder = inner, finder

    def __getattr__(self, name: str):
        return getattr(self._inner, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._finder.run(self._inner, module)
