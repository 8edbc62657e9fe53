"""BERT from a local folder where LAVIS asks the hub for `bert-base-uncased`.

BLIP-2's tokenizer, the Q-Former's configuration and its first weights come from there, by a name fixed in LAVIS's
code. With TOVE_LAVIS_BERT set, that name is read as the folder; nothing else is redirected.
"""

import os
from pathlib import Path
from types import ModuleType
from typing import Any

from ...config import UserError

VARIABLE = "TOVE_LAVIS_BERT"
_HUB_NAME = "bert-base-uncased"
_CLASSES = ("BertTokenizer", "BertConfig", "BertLMHeadModel")
_FILES = ("config.json",)


class _FromFolder:
    """Stands for a class in LAVIS's module: the same class, but for `from_pretrained` of that one name."""

    def __init__(self, cls: Any):
        self._cls = cls

    def from_pretrained(self, name: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._cls.from_pretrained(_local(name), *args, **kwargs)
        except OSError as error:
            if name != _HUB_NAME:
                raise
            raise UserError(
                f"LAVIS wants `{_HUB_NAME}` for its Q-Former and it cannot be had "
                f"({' '.join(str(error).split())[:200]}); set the environment variable {VARIABLE} to a folder with it"
            ) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cls, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._cls(*args, **kwargs)


def use_local_folder() -> None:
    """Let LAVIS's BLIP-2 module look at the environment variable when it builds a model. Idempotent."""
    from lavis.models.blip2_models import blip2

    _stand_in(blip2)


def _stand_in(module: ModuleType) -> None:
    for name in _CLASSES:
        cls = getattr(module, name)
        if not isinstance(cls, _FromFolder):
            setattr(module, name, _FromFolder(cls))


def _local(name: str) -> str:
    folder = os.environ.get(VARIABLE)
    if not folder or name != _HUB_NAME:
        return name
    missing = [file for file in _FILES if not (Path(folder) / file).is_file()]
    if missing:
        raise UserError(
            f"{VARIABLE} is `{folder}`, which holds no {missing[0]}; it stands for `{_HUB_NAME}`: a folder with BERT's "
            "config.json, weights and tokenizer"
        )
    return folder
