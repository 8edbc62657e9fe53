"""Commands to start with: `tove new` makes a folder to train in, `tove demo` shows the whole in the miniature world."""

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer

from ..config import UserError
from .app import JsonFlag, app, console

_STAGES = {
    "pretrain": "pretrain_projector.py",
    "finetune": "finetune_vicuna.py",
    "merge": "merge_experts.py",
    "pretrain_base": "pretrain_base.py",
    "pretrain_large": "pretrain_base.py",
    "finetune_coco": "finetune_base.py",
    "finetune_vqav2": "finetune_base.py",
}
"""A YAML's name -> the script that it is for."""
_LAUNCH = {"miniature": "deepspeed --num_accelerators 1"}  # too small to be divided
_DATA = {
    "miniature": 'python -c "from tove_lvlm.world.dataset import write_dataset as write; '
    "write('outputs/miniature/data/train', 'train', 3000, all_tasks=True)\""
}
"""How a project's data are made; for the others the README says where they come from."""


@app.command()
def new(
    folder: Annotated[Path | None, typer.Argument(help="Folder to make; it may exist if it is empty.")] = None,
    project: Annotated[str, typer.Option(help="What to start from; --list shows them all.")] = "miniature",
    show: Annotated[bool, typer.Option("--list", help="Show the projects.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make a folder to train in: the training scripts, a project's YAMLs, ready towers and DeepSpeed's JSONs."""
    from ..project_files import about_project, project_names

    if show:
        rows = {name: about_project(name) for name in project_names()}
        if as_json:
            print(json.dumps(rows))
            return
        width = max(map(len, rows))
        for name, about in rows.items():
            console.print(f"{name:<{width}}  {about}", markup=False, highlight=False, soft_wrap=True)
        return
    if folder is None:
        raise UserError("tove new takes the folder to make, for example `tove new my_run`; --list shows the projects")
    files = make_project(folder, project)
    if as_json:
        print(json.dumps({"folder": str(folder), "project": project, "files": files}))
        return
    console.print(f"{folder}: {len(files)} files to train with, project {project}. Next:", highlight=False)
    for line in next_commands(folder, project):
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


def make_project(folder: Path, project: str) -> list[str]:
    """Write a folder from which a project's commands run as they do from a source checkout.

    Args:
        folder: To make, whole or not at all; it may exist if it is empty.
        project: A name of `project_names()`.

    Returns:
        The files' paths from the folder, sorted.

    Raises:
        UserError: There is no such project, or the folder has something in it, is where the user stands, or cannot be
            written.
    """
    from ..project_files import SCRIPTS, SHARED, check_project, project_files
    from ..storage import new_folder

    root, name = project_files(), check_project(project)
    sources = [root / "scripts" / script for script in SCRIPTS]
    for part in (name, *SHARED):
        sources += (path for path in (root / "projects" / part).rglob("*") if path.is_file())
    files = sorted(str(path.relative_to(root)) for path in sources if "__pycache__" not in path.parts)
    with new_folder(folder) as temporary:
        for file in files:
            (temporary / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / file, temporary / file)  # an installed file may be read-only, a copy is not
    return files


def next_commands(folder: Path, project: str) -> list[str]:
    """What to type next, in order, for somebody who stands where `tove new` was called.

    Args:
        folder: As it was given.
        project: As for `make_project`.
    """
    yamls = folder / "projects" / project
    lines = [f"cd {folder}", _DATA.get(project, f"# the data: see projects/{project}/README.md")]
    launch = _LAUNCH.get(project, "deepspeed")
    for stage, script in _STAGES.items():
        if (yamls / f"{stage}.yaml").is_file():
            lines.append(f"{launch} scripts/{script} --cfg-path projects/{project}/{stage}.yaml")
    return lines


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Where data, models and results go.")] = Path("outputs/miniature"),
    seed: Annotated[int, typer.Option(help="Seed of data order and of initialisation.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Training steps per stage instead of the YAMLs'.", min=1)] = None,
    scenes: Annotated[tuple[int, int] | None, typer.Option(help="Training and held-out scenes.")] = None,
) -> None:
    """Train ToVE_Vicuna and CLIP-only in the miniature world with the real scripts, and compare them."""
    from .. import demo as demonstration

    chosen = scenes or (demonstration.NUM_SCENES, demonstration.NUM_HELDOUT)
    demonstration.run(output, seed=seed, steps=steps, scenes=chosen, console=console)
