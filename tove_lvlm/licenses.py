"""What a licence says about commercial use, for the code and the weights of experts.

No legal advice: a short table of the names that the libraries and the hub use. A name that is not in it is unknown,
which is said as plainly as a no. The licence of the images that a network was trained on is another matter.
"""

from collections.abc import Iterable
from dataclasses import dataclass

YES, NO, UNKNOWN = "yes", "no", "unknown"


@dataclass(frozen=True, kw_only=True)
class License:
    """One licence, by the name that is used for it."""

    id: str
    """As SPDX or the hub spells it, lower case."""
    commercial: str
    """`yes`, `no` or `unknown`."""
    note: str = ""
    """What is to be kept in mind beside that; empty where nothing is."""


_FREE = (
    "0bsd",
    "apache-2.0",
    "apple-ascl",
    "bsd",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc-by-2.0",
    "cc-by-3.0",
    "cc-by-4.0",
    "cc-by-sa-3.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "isc",
    "mit",
    "mpl-2.0",
    "unlicense",
    "zlib",
)
_COPYLEFT = ("agpl-3.0", "gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0")
_TERMS = {
    "dinov3-license": "Meta's DINOv3 licence: to be accepted first; it excludes military and some other uses",
    "gemma": "Google's Gemma terms of use, with a list of prohibited uses",
    "nvidia-open-model-license": "NVIDIA's Open Model License Agreement",
}
_CLOSED = {
    "apple-amlr": "Apple's licence for research on models only",
    "fair-noncommercial-research-license": "Meta's licence for non-commercial research",
    "insightface": "non-commercial research",
    "nvidia-noncommercial": "NVIDIA's licence for research and evaluation",
    "nvidia-source-code-license": "NVIDIA's licence for research and evaluation",
    "research-only": "research only",
    "seer-license": "Meta's SEER licence: non-commercial",
}
_KNOWN = {
    **{name: License(id=name, commercial=YES) for name in _FREE},
    **{name: License(id=name, commercial=YES, note="copyleft: what links it is under it too") for name in _COPYLEFT},
    **{name: License(id=name, commercial=YES, note=note) for name, note in _TERMS.items()},
    **{name: License(id=name, commercial=NO, note=note) for name, note in _CLOSED.items()},
}
_NO_LICENSE = ("", "none", "other", "unknown", "not stated")


def license_of(name: str | None) -> License:
    """What is known of a licence.

    Args:
        name: Its SPDX id or the hub's name for it, in any case; None where nobody says.
    """
    key = "" if name is None else "-".join(name.lower().split())
    if key in _NO_LICENSE:
        return License(id="unknown", commercial=UNKNOWN, note="no licence is stated")
    if key in _KNOWN:
        return _KNOWN[key]
    if {"nc", "noncommercial"} & set(key.replace("non-commercial", "noncommercial").split("-")):
        return License(id=key, commercial=NO, note="its name says non-commercial")
    return License(id=key, commercial=UNKNOWN, note="not among the licences that this package knows")


def commercial_use(names: Iterable[str | None]) -> str:
    """Whether all of these licences together allow commercial use.

    Args:
        names: Of code and weights.

    Returns:
        `no` where one forbids it, else `unknown` where one is not known, else `yes`.
    """
    answers = {license_of(name).commercial for name in names}
    return next((answer for answer in (NO, UNKNOWN) if answer in answers), YES)


def terms_of(names: Iterable[str | None]) -> list[str]:
    """What these licences say beside yes and no, each once.

    Args:
        names: Of code and weights.
    """
    return list(dict.fromkeys(note for name in names if (note := license_of(name).note)))
