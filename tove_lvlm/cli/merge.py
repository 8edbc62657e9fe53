"""`tove merge`: a trained tower's experts into one plain CLIP, in this process."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..config import UserError
from .app import FurtherOptions, JsonFlag, Options, app, console

_START = {
    "per_device_train_batch_size": 32,
    "learning_rate": 1e-4,
    "max_steps": 2000,
    "warmup_ratio": 0.06,
    "save_steps": 250,
    "logging_steps": 10,
}
"""Of a run without a YAML: a start for a full-size CLIP. The projects' YAMLs say what was measured."""


@app.command()
def merge(
    checkpoint: Annotated[Path, typer.Argument(help="A trained tower, or a model with one: any folder we write.")],
    output: Annotated[Path, typer.Option(help="Where clip/ goes, and with a language model lvlm/, pretrain/, llm/.")],
    images: Annotated[
        list[Path] | None, typer.Option(help="Folder of images; left out: those that the checkpoint was trained on.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps.")] = None,
    cfg_path: Annotated[Path | None, typer.Option(help="A project's merge.yaml, for all not given here.")] = None,
    options: Options = None,
    further: FurtherOptions = None,
    as_json: JsonFlag = False,
) -> None:
    """Merge the experts into one plain CLIP that costs what CLIP costs; the same command goes on where it stopped."""
    from ..config import parse, read_yaml
    from ..recipes.merge import MERGE
    from ..train.launch import guarded
    from ..train.stage import resolve_run

    stage = MERGE
    overrides = [f"model.checkpoint={checkpoint.resolve()}", f"train.output_dir={output.resolve()}"]
    if images:
        overrides.append(f"data.images=[{','.join(str(folder.resolve()) for folder in images)}]")
    elif cfg_path is None:
        overrides.append(f"data.images=[{_trained_on(checkpoint)}]")
    if max_steps is not None:
        overrides.append(f"train.max_steps={max_steps}")
    overrides += [*(options or []), *(further or [])]

    def load():
        if cfg_path is None:
            from omegaconf import OmegaConf

            tree = OmegaConf.merge({"train": _START}, OmegaConf.from_dotlist(overrides))
            config = parse(stage.schema, OmegaConf.to_container(tree), where="tove merge")
        else:
            # One process: the launcher and its JSON are for scripts/merge_experts.py.
            config = parse(stage.schema, read_yaml(cfg_path, [*overrides, "train.deepspeed=null"]), where=str(cfg_path))
        return resolve_run(stage, config, (cfg_path or Path("x")).resolve().parent)

    code = guarded(stage, load)
    if code:
        raise typer.Exit(code)
    report = json.loads((output / "clip" / "merge.json").read_text(encoding="utf-8"))
    if as_json:
        print(json.dumps(report))
        return
    figures = ", ".join(f"{key} {report[key]:.4f}" for key in ("loss", "gap", "cosine") if key in report)
    console.print(f"{output}: {report['steps']} steps on {report['images']} images, {figures}")


def _trained_on(checkpoint: Path) -> str:
    """The image folder in the run.yaml beside a checkpoint."""
    import yaml

    for folder in (checkpoint, checkpoint.parent):
        if (folder / "run.yaml").is_file():
            config = yaml.safe_load((folder / "run.yaml").read_text(encoding="utf-8"))
            if images := (config.get("data") or {}).get("image_folder"):
                return images
    raise UserError(f"`{checkpoint}` does not say which images it was trained on (no run.yaml); name some by --images")
