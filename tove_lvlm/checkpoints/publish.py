"""A trained model or a tower on the hub, with a card, and nothing that names a place on this machine.

See docs/serving.md, "The hub".
"""

from pathlib import Path

from ..config import UserError
from ..config.model import MODEL_FILE
from ..storage import load_json, save_json
from ..tower.card import CARD_FILE, MARK
from ..tower.parts import SOURCES_FILE
from ..tower.publish import stage_tower
from ..weights.upload import without_local_places
from .card import model_card
from .detect import detect, open_tower
from .experts import CONFIG
from .tower import TowerCheckpoint

_NAMING_PLACES = (CONFIG, MODEL_FILE, SOURCES_FILE)


def stage(folder: str | Path, repo: str, target: Path) -> dict[str, int]:
    """Put together what is uploaded; large files are links.

    Args:
        folder: A tower, or a whole model. An adapter in it is left out: it belongs to files that lie elsewhere.
        repo: Hub id that it will have.
        target: New.

    Returns:
        Name in the repository -> bytes.

    Raises:
        UserError: The folder holds none of these.
        WeightsError: Weights are missing.
    """
    checkpoint = detect(folder)
    if isinstance(checkpoint, TowerCheckpoint):
        stage_tower(open_tower(folder), target)
    elif not checkpoint.holds_tower:
        raise UserError(
            f"`{folder}` ({checkpoint.kind}) refers to a language model that lies elsewhere; for the hub merge it "
            f"first: tove export {folder} --format merged --output DIR"
        )
    else:
        target.mkdir()
        for path in checkpoint.files():
            if path.parent != checkpoint.folder:
                continue
            if path.name in _NAMING_PLACES:
                save_json(target / path.name, without_local_places(load_json(path)))
            else:
                (target / path.name).symlink_to(path.resolve())
        own = target / CARD_FILE
        if not own.is_file() or MARK in own.read_text(encoding="utf-8", errors="replace"):
            own.unlink(missing_ok=True)
            own.write_text(model_card(checkpoint.folder, repo), encoding="utf-8")
    return {path.name: path.stat().st_size for path in sorted(target.iterdir())}
