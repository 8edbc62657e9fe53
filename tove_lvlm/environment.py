"""Environment variables that hold for a while.

Some libraries are told by a variable only: transformers whether to compare images and tokens on the device
(`TRANSFORMERS_DISABLE_TORCH_CHECK`), LAVIS's models where BERT lies.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def environment(**values: str | None) -> Iterator[None]:
    """These variables are set until this is left; then they are as they were.

    Args:
        **values: By name; None leaves a variable as it is.

    """
    wanted = {name: value for name, value in values.items() if value is not None}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
