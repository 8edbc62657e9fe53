"""Names to things: registries with exact names, and lazy access to optional packages."""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Generic, TypeVar

T = TypeVar("T")


def nearest(word: str, options: Iterable[str], limit: int = 3) -> str:
    """Sentence that helps somebody who wrote `word`: the closest valid names, or all of them when none is close.

    Args:
        word: What was given.
        options: What would have been valid; of more than two dozen the closest are shown, however far.
        limit: How many close names to show.
    """
    options = sorted(options)
    close = difflib.get_close_matches(word, options, n=limit, cutoff=0.5 if len(options) <= 24 else 0.0)
    if close:
        return "did you mean " + " or ".join(f"`{name}`" for name in close) + "?"
    return "valid: " + ", ".join(f"`{name}`" for name in options) if options else "there are none"


class Registry(Generic[T]):
    """Exact names to classes or functions; a duplicate and an unknown name are errors that say what to do.

    Args:
        kind: What is registered, for the messages ("expert family").
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files a class or function under `name`.

        Raises:
            ValueError: The name is malformed or taken.
        """
        if not name or name != name.strip().lower():
            raise ValueError(f"{self.kind} name {name!r} must be lower case without surrounding blanks")

        def decorate(item: T) -> T:
            current = self._items.get(name)
            # A module that is reloaded files the same object again: that is no conflict.
            if current is not None and _origin(current) != _origin(item):
                raise ValueError(
                    f"{self.kind} `{name}` is taken by {_origin(current)}; {_origin(item)} needs another, unique name"
                )
            self._items[name] = item
            return item

        return decorate

    def get(self, name: str) -> T:
        """The item called `name`.

        Raises:
            ValueError: Nothing is registered under exactly this name.
        """
        if name not in self._items:
            raise ValueError(f"unknown {self.kind} `{name}`; {nearest(name, self.names())}")
        return self._items[name]

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._items)

    def __contains__(self, name: str) -> bool:
        return name in self._items


class FolderRegistry(Registry[T]):
    """A registry whose names are also the folders of a package: `PACKAGE/NAME/MODULE.py` registers what NAME is.

    All folders are known without an import; one is imported when its name is asked for. Other names are registered as
    in any registry.

    Args:
        kind: As for `Registry`.
        package: Dotted name of the package with the folders. A plain module in its place, as in the flat code that is
            exported with a tower, registers all names when it is imported.
        module: Name of the module in each folder.
    """

    def __init__(self, kind: str, package: str, module: str):
        super().__init__(kind)
        self.package, self.module = package, module

    def folders(self) -> list[str]:
        """Names of the folders, sorted."""
        places = getattr(importlib.import_module(self.package), "__path__", ())
        return sorted(found.name for found in pkgutil.iter_modules(places) if found.ispkg)

    def register(self, name: str) -> Callable[[T], T]:
        """As `Registry.register`; the name of a folder is taken, whether the folder is imported yet or not."""
        register = super().register(name)

        def decorate(item: T) -> T:
            self._load(name)  # in the folder's own module, which is being imported, this does nothing
            return register(item)

        return decorate

    def get(self, name: str) -> T:
        """As `Registry.get`."""
        self._load(name)
        return super().get(name)

    def names(self) -> list[str]:
        """All names, sorted; imports nothing."""
        return sorted({*self.folders(), *self._items})

    def __contains__(self, name: str) -> bool:
        return name in self.folders() or name in self._items

    def _load(self, name: str) -> None:
        if name not in self._items and name in self.folders():
            importlib.import_module(f"{self.package}.{name}.{self.module}")


def _origin(item: object) -> str:
    return f"{getattr(item, '__module__', '?')}.{getattr(item, '__qualname__', repr(item))}"


def require(module: str, extra: str) -> ModuleType:
    """Import an optional package where it is used.

    Args:
        module: Name of the module to import.
        extra: The extra of `tove-lvlm` that installs it.

    Raises:
        ImportError: The package is absent; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(error.name + ".")):
            raise  # the package is there and one of its own imports is not: that message says more
        package = module.split(".")[0]
        raise ImportError(
            f"this needs the package `{package}`, which is not installed: pip install 'tove-lvlm[{extra}]'"
        ) from error
