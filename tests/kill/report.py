"""The suite's table, and the same as JSON."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from kill.bench import Outcome

_COLUMNS = ("command", "ranks", "runs", "kills", "hits", "resumed from", "failures", "median s")


def rows(outcomes: Mapping[tuple[str, int], Sequence[Outcome]]) -> list[dict[str, Any]]:
    """One row for each command and number of ranks.

    Args:
        outcomes: (command, ranks) -> its runs.
    """
    return [
        {
            "command": command,
            "ranks": ranks,
            "runs": len(runs),
            "kills": sum(len(run.moments) for run in runs),
            "hits": sum(run.hits for run in runs),
            "resumed": dict(Counter(run.resumed for run in runs)),
            "failures": sum(bool(run.problems) for run in runs),
            "median_seconds": round(statistics.median(run.seconds for run in runs), 1) if runs else None,
            "problems": [
                {"seed": run.seed, "moments": [str(moment) for moment in run.moments], "problems": run.problems}
                for run in runs
                if run.problems
            ],
        }
        for (command, ranks), runs in outcomes.items()
    ]


def table(table_rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows for people, with a last one of sums."""
    resumed: Counter[str] = Counter()
    cells = [_COLUMNS]
    for row in table_rows:
        resumed.update(row["resumed"])
        numbers = [str(row[key]) for key in ("runs", "kills", "hits")]
        end = (str(row["failures"]), str(row["median_seconds"]))
        cells.append((row["command"], str(row["ranks"]), *numbers, _counted(row["resumed"]), *end))
    sums = [str(sum(row[key] for row in table_rows)) for key in ("runs", "kills", "hits", "failures")]
    cells.append(("all", "", *sums[:3], _counted(resumed), sums[3], ""))
    widths = [max(len(line[column]) for line in cells) for column in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join(lines)


def _counted(resumed: Mapping[str, int]) -> str:
    return ", ".join(f"{what} {count}" for what, count in sorted(resumed.items()))
