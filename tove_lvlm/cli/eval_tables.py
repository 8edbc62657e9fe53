"""What `tove eval` prints: a score, two scores side by side, what is found of the benchmarks."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from .app import console

_NUM_PARTS = 4
"""More parts than these are rows of a table of their own."""


def print_record(record: Mapping[str, Any]) -> None:
    """Metrics over all and those of each part, and what is wrong with the data."""
    head = f"{record['task']}: {record['num_items']} questions, convention {record['convention']}"
    console.print(head, markup=False, soft_wrap=True, highlight=False)
    groups = record["groups"]
    few = groups if len(groups) <= _NUM_PARTS else {}
    if record["metrics"]:
        columns = {"all": record["metrics"], **few}
        names = dict.fromkeys(name for values in columns.values() for name in values)
        console.print(_table("metric", list(columns), [[n, *(v.get(n) for v in columns.values())] for n in names]))
    if groups and not few:
        names = dict.fromkeys(name for values in groups.values() for name in values)
        console.print(_table("part", list(names), [[part, *map(v.get, names)] for part, v in groups.items()]))
    for note in record["notes"]:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    print_problems(record["problems"])


def print_problems(problems: Mapping[str, Mapping[str, Any]]) -> None:
    """One line for each kind."""
    for kind, examples in problems.items():
        more = ", ..." if examples["count"] > len(examples["first"]) else ""
        line = f"problem: {examples['count']} x {kind}: {', '.join(examples['first'])}{more}"
        console.print(line, markup=False, soft_wrap=True)


def print_comparison(names: Sequence[object], result: Mapping[str, Any]) -> None:
    """Rows of `compare` with what else differs."""
    table = Table("part", "metric")
    for name in (*names, "difference"):
        table.add_column(str(name), justify="right", overflow="fold")
    for row in result["metrics"]:
        difference = "-" if row["difference"] is None else f"{row['difference']:+.5g}"
        table.add_row(row["group"], row["name"], _number(row["first"]), _number(row["second"]), difference)
    console.print(table)
    for reason in result["incomparable"]:
        console.print(f"not comparable: {reason}", markup=False, soft_wrap=True)
    for name, (first, second) in result["differs"].items():
        console.print(f"differs: {name}: {first} | {second}", markup=False, soft_wrap=True)


def print_survey(rows: Sequence[Mapping[str, Any]]) -> None:
    """What is found and what is missing, with where to get it."""
    for row in rows:
        state = "missing" if row["missing"] else "found"
        console.print(f"{row['task']}: {state}. {row['about']}", markup=False, soft_wrap=True, highlight=False)
        for path in (*row["labels"], *([row["images"]] if row["images"] else [])):
            console.print(f"    found   {path}", markup=False, soft_wrap=True, highlight=False)
        for path in row["missing"]:
            console.print(f"    missing {path}", markup=False, soft_wrap=True, highlight=False)
        if row["missing"]:
            console.print(f"    from    {row['source']}", markup=False, soft_wrap=True, highlight=False)


def _table(first: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    table = Table(first)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for name, *values in rows:
        table.add_row(name, *map(_number, values))
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.7g}"
