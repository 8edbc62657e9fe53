"""What the package of a host has, as types; README.md beside this file says it in words.

tests/hosts/test_contract.py tests every package in this folder against them.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

REQUIRED = ("__init__", "__main__", "register", "tower", "checks")
"""Files of every host; the same role has the same name in each."""


@runtime_checkable
class Host(Protocol):
    """The face of a host, the package `tove_lvlm.hosts.NAME`; importing it does not import the host."""

    EXTRA: str | None
    """The extra of `tove-lvlm` that installs the host; none where it has an environment of its own."""
    KEY: str | None
    """The host's own setting that takes `tove` or `tove:PATH`; none where the tower comes with the model."""

    @property
    def register(self) -> "Register":
        """Put the tower into the host."""


class Register(Protocol):
    """Makes a host know the tower, in this process and without a change to its files; may be called again."""

    def __call__(self) -> Any:
        """Register.

        Returns:
            What there is to say of it: which host it was, what had to be put back.

        Raises:
            ImportError: The host is not installed; names how to get it.
            UserError: Its version lacks something that is replaced; names version, module and function.
        """


@runtime_checkable
class HostProgram(Protocol):
    """The module `tove_lvlm.hosts.NAME.__main__`: the host's own programs, with the tower in place."""

    @property
    def main(self) -> "Main":
        """Run one."""


class Main(Protocol):
    """What `python -m tove_lvlm.hosts.NAME ARGS...` calls; a mistake ends it with one line and exit code 2."""

    def __call__(self, argv: Sequence[str]) -> None:
        """Run the host's program.

        Args:
            argv: Without the name of the program.

        Raises:
            UserError: What was given is wrong.
        """
