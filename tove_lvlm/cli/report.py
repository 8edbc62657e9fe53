"""The command `tove report`."""

from pathlib import Path
from typing import Annotated

import typer

from .app import app, console

DEFAULT_OUTPUT = Path("outputs/report.html")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders that a training script wrote, or that hold such.")],
    output: Annotated[Path, typer.Option(help="The HTML file.")] = DEFAULT_OUTPUT,
    evals: Annotated[
        list[Path] | None, typer.Option("--eval", help="A folder of `tove eval`, or of several; may be repeated.")
    ] = None,
    usages: Annotated[list[Path] | None, typer.Option("--usage", help="A folder of `tove usage`.")] = None,
    panels: Annotated[list[Path] | None, typer.Option("--gates", help="A folder of `tove gates`.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="As of `tove eval`: labels and pictures, for examples right and wrong.")
    ] = None,
    examples: Annotated[int, typer.Option(help="Right and wrong answers shown of each evaluation.", min=0)] = 4,
) -> None:
    """One HTML file about training runs, side by side: losses, gate, speed, configuration, scores, examples.

    It needs nothing beside it, and nothing is loaded from elsewhere.

    tove report outputs/miniature --eval outputs/eval --data /data --output report.html
    """
    from ..report.examples import Examples, find_examples
    from ..report.findings import find_demos, find_evaluations, find_gates, find_usage
    from ..report.page import Contents, check_output, write_report
    from ..report.reading import read_runs

    given = [*(evals or []), *(usages or []), *(panels or []), *([] if data is None else [data])]
    check_output(output, [*runs, *given])
    found = read_runs(runs)
    evaluations = find_evaluations(found, evals or [])
    contents = Contents(
        runs=found,
        evaluations=evaluations,
        examples=[find_examples(one, data, examples) if examples else Examples(shown=[]) for one in evaluations],
        usage=find_usage(found, usages or []),
        gates=find_gates(found, panels or []),
        demos=find_demos(found),
    )
    folders = [one.folder for one in evaluations] + [one.folder for one in (*contents.usage, *contents.gates)]
    check_output(output, folders)
    write_report(output, contents)
    console.print(
        f"{output}: {len(found)} runs, {len(evaluations)} evaluations, {len(contents.usage)} usage reports, "
        f"{len(contents.gates)} folders of gate panels",
        markup=False,
        soft_wrap=True,
        highlight=False,
    )
