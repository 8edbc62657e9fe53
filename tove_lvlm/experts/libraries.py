"""The libraries whose networks are experts: what installs each, the licence of its code.

Those of several families, or that a plugin is likely to use, stand here; that of one family stands in its config.py.
"""

import importlib.util

from .schema import EXPERT_CONFIGS, THIS_PACKAGE, Library

KORNIA = Library(name="kornia", module="kornia", extra="experts", license="apache-2.0")
TIMM = Library(name="timm", module="timm", extra="experts", license="apache-2.0")
TORCHVISION = Library(name="torchvision", module="torchvision", extra=None, license="bsd-3-clause")
TRANSFORMERS = Library(name="transformers", module="transformers", extra=None, license="apache-2.0")


def find_library(name: str) -> Library | None:
    """The library of this name, as an expert's class gives it in `library`; None for one that nobody describes."""
    shared = (KORNIA, THIS_PACKAGE, TIMM, TORCHVISION, TRANSFORMERS)
    of_families = (EXPERT_CONFIGS.get(family).library for family in EXPERT_CONFIGS.names())
    return next((library for library in (*shared, *of_families) if library.name == name), None)


def install_hint(library: str) -> str | None:
    """The command that installs a library which is not here; None for one that is, or that is not known.

    Args:
        library: As for `find_library`.
    """
    found = find_library(library)
    if found is None or importlib.util.find_spec(found.module) is not None:
        return None
    return f"pip install 'tove-lvlm[{found.extra}]'" if found.extra else f"pip install {found.module}"


def code_license(library: str) -> str | None:
    """Licence of a library's code; None where it is not known."""
    found = find_library(library)
    return None if found is None else found.license
