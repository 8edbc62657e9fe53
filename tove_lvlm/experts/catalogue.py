"""Known experts by name, and any backbone of a library in one line.

An entry of a tower's `experts` list may be a name, or hold one under `expert` with further keys put over it:

    dinov2_l14_reg                  a name of the catalogue (catalogue/*.yaml): architecture, input, weights, licences
    timm/NAME.TAG                   a family and an architecture; its library's own tables say the rest
    open_clip/NAME/TAG

It is expanded before it is checked, so that everything behind it sees plain architecture fields and weight keys.
Nothing heavy is imported for a name of the catalogue.
"""

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import ConfigError, read_yaml
from ..registry import nearest
from .schema import EXPERT_CONFIGS

FOLDER = Path(__file__).parent / "catalogue"
_PLACE_KEYS = ("revision", "file", "sha256", "license")


@functools.cache
def catalogue() -> dict[str, dict[str, Any]]:
    """Name -> entry as a tower YAML would write it, with `about` beside; in the order of the files."""
    entries: dict[str, dict[str, Any]] = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        for name, entry in read_yaml(path).items():
            if name in entries:
                raise ValueError(f"{path}: the catalogue has `{name}` twice")
            entries[name] = entry
    return entries


def resolve_entry(entry_or_name: str | Mapping[str, Any], where: str) -> dict[str, Any]:
    """An entry of a tower's `experts` list with what the name in it stands for.

    Args:
        entry_or_name: A name, or a mapping that may hold one under `expert`.
        where: File and key named in the message.

    Raises:
        ConfigError: No such name.
    """
    stated = {"expert": entry_or_name} if isinstance(entry_or_name, str) else dict(entry_or_name)
    if "expert" not in stated:
        return stated
    reference = stated.pop("expert")
    if not isinstance(reference, str):
        raise ConfigError(f"{where}.expert: {reference!r}; expected a name, see `tove experts`")
    try:
        fields = entry_of(reference)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    if "pretrained" in stated:  # other weights: neither what pins down the catalogue's file nor its terms are theirs
        fields = {key: value for key, value in fields.items() if key not in _PLACE_KEYS}
    return {**fields, **stated}


def entry_of(reference: str) -> dict[str, Any]:
    """The whole entry that a name stands for, with a `name` made from it.

    Raises:
        ConfigError: It is neither in the catalogue nor an architecture of a library that has a table of them.
    """
    family, slash, architecture = reference.partition("/")
    if not slash:
        if reference not in catalogue():
            raise ConfigError(
                f"unknown expert `{reference}`; {nearest(reference, catalogue())} `tove experts` lists them; any "
                "backbone: `timm/NAME` or `open_clip/NAME/TAG`"
            )
        entry = {key: value for key, value in catalogue()[reference].items() if key != "about"}
        return {"name": reference, **entry}
    if family not in EXPERT_CONFIGS:
        raise ConfigError(f"expert `{reference}`: unknown family `{family}`; {nearest(family, EXPERT_CONFIGS.names())}")
    from .base import EXPERTS

    library_entry = EXPERTS.get(family).entry_of(architecture)
    name = re.sub(r"\W+", "_", re.split(r"[./]", architecture)[0]).lower()
    return {"name": name if name.isidentifier() else f"{family}_{name}", "family": family, **library_entry}
