"""The training scripts and the projects: a wheel carries them, a source checkout has them at its root.

Nothing is copied in the repository: `pyproject.toml` puts `projects/` and the scripts named here into the wheel.
"""

import re
from pathlib import Path

from .config import UserError
from .registry import nearest

SCRIPTS = (
    "pretrain_projector.py",
    "finetune_vicuna.py",
    "merge_experts.py",
    "pretrain_base.py",
    "finetune_base.py",
)
"""Of `scripts/`, those that train; the others are for developers of this package."""
OF_CHECKOUT = ("real_small",)
"""Of `projects/`, what needs scripts that a wheel does not have."""
SHARED = ("towers", "deepspeed")
"""Of `projects/`, what the projects' YAMLs refer to."""
_PACKED = Path(__file__).resolve().parent / "_project_files"
_CHECKOUT = Path(__file__).resolve().parent.parent


def project_files() -> Path:
    """The folder that holds `scripts/` and `projects/`.

    Raises:
        UserError: Neither an installed wheel's nor a checkout's are there.
    """
    for root in (_PACKED, _CHECKOUT):
        if all((root / "scripts" / script).is_file() for script in SCRIPTS):
            return root
    raise UserError(
        f"the training scripts are neither in {_PACKED} (a wheel has them) nor in {_CHECKOUT} (a source checkout has "
        "them); install tove-lvlm again from its wheel, or with `pip install -e` from a checkout"
    )


def project_names() -> list[str]:
    """The projects that train and need nothing else: the folders of `projects/` with a YAML to pre-train by, sorted."""
    found = {yaml.parent.name for yaml in (project_files() / "projects").glob("*/pretrain*.yaml")}
    return sorted(found - set(OF_CHECKOUT))


def check_project(name: str) -> str:
    """The name of a project, as it is.

    Raises:
        UserError: There is none of this name.
    """
    names = project_names()
    if name not in names:
        raise UserError(f"unknown project `{name}`; {nearest(name, names)}")
    return name


def about_project(name: str) -> str:
    """The first words of a project's README, up to a full stop or a colon; empty without a README."""
    readme = project_files() / "projects" / name / "README.md"
    if not readme.is_file():
        return ""
    blocks = readme.read_text(encoding="utf-8").split("\n\n")
    paragraph = next((" ".join(block.split()) for block in blocks if not block.lstrip().startswith("#")), "")
    return re.split(r"[.:](?:\s|$)", paragraph)[0]
