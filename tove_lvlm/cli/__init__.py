"""The command `tove`: a thin face over the package, one file for each subject.

Everything heavy is imported inside the command that needs it.
"""

import sys

from ..config import UserError
from ..storage import disk_message
from ..streams import prepare_streams
from . import (  # noqa: F401  each registers its commands
    cache,
    data,
    detach,
    eval,
    experts,
    export,
    fetch,
    gates,
    graft,
    info,
    merge,
    models,
    new,
    push,
    report,
    serve,
    usage,
    view,
)
from .app import app

__all__ = ["app", "main"]


def main() -> None:
    """Entry point: what the user gave wrong ends in one line and exit code 2."""
    prepare_streams()
    try:
        app()
    except (UserError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    except Exception as error:  # the disk's, in what is not written by `storage.new_folder`
        message = disk_message(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(2) from error
