"""What is wrong with answers, labels and images: counted and named, never silently scored."""

from collections.abc import Iterable
from typing import Any

from ...config import UserError

_SHOWN = 3


class Problems:
    """Findings by kind, each with what it concerns (a question id, an image, `file:line`), in the order found.

    Kinds are short noun phrases in the singular ("missing answer", "duplicate answer", "empty prediction").
    """

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, kind: str, which: object) -> None:
        """Note one finding."""
        self._found.setdefault(kind, []).append(str(which))

    def add_all(self, kind: str, which: Iterable[object]) -> None:
        """Note several of a kind."""
        for item in which:
            self.add(kind, item)

    def __bool__(self) -> bool:
        return bool(self._found)

    def __getitem__(self, kind: str) -> list[str]:
        return self._found.get(kind, [])

    def lines(self) -> list[str]:
        """One line for each kind: its count and the first few concerned."""
        shown = []
        for kind, which in self._found.items():
            first = ", ".join(which[:_SHOWN]) + (", ..." if len(which) > _SHOWN else "")
            shown.append(f"{len(which)} x {kind}: {first}")
        return shown

    def found(self) -> dict[str, list[str]]:
        """All that was found: kind -> what it concerns."""
        return {kind: list(which) for kind, which in self._found.items()}

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """For a score record: kind -> `count` and the `first` few concerned."""
        return {kind: {"count": len(which), "first": which[:_SHOWN]} for kind, which in self._found.items()}

    def refuse(self) -> None:
        """For `--strict`.

        Raises:
            UserError: Anything was found.
        """
        if self:
            raise UserError(f"refused because of --strict: {'; '.join(self.lines())}")
