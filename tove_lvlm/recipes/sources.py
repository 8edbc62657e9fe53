"""What the YAMLs of several recipes name alike, checked before torch is imported.

See docs/design.md, "Configuration".
"""

from pathlib import Path

from ..config import ConfigError
from ..registry import nearest
from ..train.stage import Resolve


def vision_tower(source: str, resolve: Resolve) -> str:
    """What `model.vision_tower` says: `tove`, `clip`, or the absolute path of a folder with a tower.

    Args:
        source: As it was written.
        resolve: See `train.stage.Stage.resolve_paths`.

    Raises:
        ConfigError: It is none of these, or the folder has no config.json.
    """
    if source in ("tove", "clip"):
        return source
    if not source.startswith(("shipped:", ".", "/", "~")) and "/" not in source and not Path(source).exists():
        hint = nearest(source, ["tove", "clip"])
        raise ConfigError(f"`model.vision_tower` is `{source}`; expected `tove`, `clip` or a folder; {hint}")
    folder = resolve("model.vision_tower", source, "folder")
    if not (Path(folder) / "config.json").is_file():
        raise ConfigError(f"`model.vision_tower`: folder `{source}` has no config.json")
    return folder
