"""`tove` commands that write a model, or figures of one, as one folder or one file."""

from collections.abc import Callable
from pathlib import Path

from kill.commands.command import OUTPUT, Command


def model_world(folder: Path) -> None:
    """Of one tiny model: `merged`; with a plain CLIP: `plain`; `tower/tower.yaml`, a few pictures, and the miniature
    world's benchmarks about five more.
    """
    from helpers.tiny_checkpoints import build, save
    from helpers.tiny_lvlm import make_data, make_llm
    from helpers.tiny_towers import make_tower_yaml
    from tove_lvlm.world.benchmarks import write_benchmarks

    llm, tower = make_llm(folder / "llm"), make_tower_yaml(folder / "tower", ["depth", "shapes"])
    save(folder / "merged", *build(llm, tower=tower))
    save(folder / "plain", *build(llm, vision_tower="clip", clip=folder / "tower" / "clip"))
    make_data(folder / "data", num=3)
    write_benchmarks(folder / "benchmarks", 5, seed=3)


def _tove(*arguments: str) -> Callable[[Path, Path, int], list[str]]:
    def argv(inputs: Path, place: Path, ranks: int) -> list[str]:
        return ["tove", *(argument.format(inputs=inputs, output=place / OUTPUT) for argument in arguments)]

    return argv


def report_world(folder: Path) -> None:
    """Two runs in `runs`, with an evaluation, its data, a report of usage and gate panels."""
    from helpers import report_files

    labels = report_files.make_labels(folder / "data")
    for name in ("clip", "tove"):
        report_files.make_run(folder / "runs" / name)
        report_files.make_evaluation(folder / "eval" / name, labels, {1: "yes", 2: "yes"}, model=name)
    report_files.make_usage(folder / "usage")
    report_files.make_gates(folder / "gates")


_PICTURES = tuple(f"{{inputs}}/data/images/{number}.png" for number in range(3))

_MEASURED = ("--eval", "{inputs}/eval", "--usage", "{inputs}/usage", "--gates", "{inputs}/gates")

MODELS = [
    Command(
        name="detach",
        make=model_world,
        argv=_tove("detach", "{inputs}/merged", "--output", "{output}", "--experts", "depth"),
        volatile=("tower_ms", "prefill_ms", "machine"),
        refuses=True,
        share=0.5,
    ),
    Command(
        name="export",
        make=model_world,
        argv=_tove("export", "{inputs}/merged", "--output", "{output}"),
        refuses=True,
    ),
    Command(
        name="export-code",
        make=model_world,
        argv=_tove("export", "{inputs}/merged", "--output", "{output}", "--format", "remote-code"),
        refuses=True,
    ),
    Command(
        name="graft",
        make=model_world,
        argv=_tove("graft", "{inputs}/plain", "--tower", "{inputs}/tower/tower.yaml", "--output", "{output}"),
        refuses=True,
    ),
    Command(  # the one that replaces an older folder: two renames
        name="gates",
        make=model_world,
        argv=_tove("gates", "{inputs}/merged", *_PICTURES, "--output", "{output}"),
        older=_tove("gates", "{inputs}/merged", _PICTURES[0], "--output", "{output}"),
    ),
    Command(  # one file, which replaces an older one
        name="report",
        make=report_world,
        argv=_tove("report", "{inputs}/runs", *_MEASURED, "--data", "{inputs}/data", "--output", "{output}.html"),
        older=_tove("report", "{inputs}/runs/tove", "--output", "{output}.html"),
    ),
]
