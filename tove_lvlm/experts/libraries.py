"""The libraries whose networks are experts: where each is, what installs it, the licence of its code."""

import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Library:
    """A package that brings networks."""

    module: str
    """What is imported."""
    extra: str | None
    """Extra of `tove-lvlm` that installs it; None where the package always needs it."""
    license: str
    """Of its code, by SPDX."""


LIBRARIES = {
    "controlnet_aux": Library(module="controlnet_aux", extra="normals", license="apache-2.0"),
    "kornia": Library(module="kornia", extra="experts", license="apache-2.0"),
    "open_clip": Library(module="open_clip", extra="experts", license="mit"),
    "rapidocr": Library(module="rapidocr", extra="text", license="apache-2.0"),
    "this package": Library(module="tove_lvlm", extra=None, license="apache-2.0"),
    "timm": Library(module="timm", extra="experts", license="apache-2.0"),
    "torchvision": Library(module="torchvision", extra=None, license="bsd-3-clause"),
    "transformers": Library(module="transformers", extra=None, license="apache-2.0"),
}
"""By the name that an expert's class gives as `library`."""


def install_hint(library: str) -> str | None:
    """The command that installs a library which is not here; None for one that is, or that is not known.

    Args:
        library: A key of `LIBRARIES`, or any other name.
    """
    entry = LIBRARIES.get(library)
    if entry is None or importlib.util.find_spec(entry.module) is not None:
        return None
    return f"pip install 'tove-lvlm[{entry.extra}]'" if entry.extra else f"pip install {entry.module}"


def code_license(library: str) -> str | None:
    """Licence of a library's code; None where it is not known."""
    return LIBRARIES[library].license if library in LIBRARIES else None
