"""The parts of the page about the trained models: scores, examples, who is used, gate panels."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..eval.compare import incomparable
from ..viz.embedding import data_address
from ..viz.usage import usage_figure
from .examples import Example, Examples
from .findings import DEMO_FILE, Evaluation, Measured, panels
from .markup import Figures, Html, element, escaped, paragraph, section, table

MOST_PANELS = 12
"""Gate panels of a folder that are shown."""
_COUNTS, _SIZE = ("tp", "fp", "tn", "fn", "undecided"), "n"
_ABOUT_RECORD = ("convention", "num_items", "limit", "decoding", "dtype", "hardware", "commit", "versions")


def evaluations(found: Sequence[Evaluation], examples: Sequence[Examples]) -> Html:
    """Scores by task, the models side by side, then right and wrong answers of each.

    Args:
        found: The records.
        examples: One for each.
    """
    if not found:
        return section("Evaluations", [paragraph("None found; give folders of `tove eval` by --eval.")])
    parts: list[Html] = []
    for task in dict.fromkeys(one.record["task"] for one in found):
        pairs = [(one, shown) for one, shown in zip(found, examples, strict=True) if one.record["task"] == task]
        of_task = [one for one, _ in pairs]
        parts += [element("h3", task), _scores(of_task), *_warnings(of_task), _about(of_task)]
        for one, shown in pairs:
            parts += _examples(f"{one.model}, {task}", shown)
    return section("Evaluations", parts)


def demos(found: Sequence[Measured]) -> dict[str, Html]:
    """Held-out questions of `tove demo`, by family, under their title; nothing where there was no demo."""
    parts: list[Html] = []
    for demo in found:
        columns = {"chance": demo.report["chance"], **demo.report["variants"]}
        families = dict.fromkeys(name for part in columns.values() for name in part["families"])
        rows = [[name, *(_accuracy(part["families"].get(name)) for part in columns.values())] for name in families]
        rows.append(["overall", *(_accuracy(part.get("overall")) for part in columns.values())])
        parts.append(paragraph(f"Percent right; from {demo.folder / DEMO_FILE}.", class_="soft"))
        parts.append(table(["family", *columns], rows, "Held-out questions, percent right"))
    title = "Held-out questions"
    return {title: section(title, parts)} if parts else {}


def usage(found: Sequence[Measured], figures: Figures) -> Html:
    """The reports of `tove usage`, as plots and numbers."""
    if not found:
        return section("Usage of the experts", [paragraph("None found; give folders of `tove usage` by --usage.")])
    parts: list[Html] = []
    for one in found:
        experts: Mapping[str, Any] = one.report["experts"]
        attached = {name: row for name, row in experts.items() if not row.get("detached")}
        parts.append(element("h3", one.folder.name))
        if attached:
            about = "; ".join(f"{name}: gate mass {_number(row.get('gate_mass'))}" for name, row in attached.items())
            parts.append(
                figures.add(usage_figure(one.report), "who is used, missed, and what it costs", about, wide=True)
            )
        keys = ("gate_mass", "first_share", "relative_norm", "loss_change", "score_change", "loss_estimate", "ms")
        head = ["expert", "gate mass", "first", "strength", "loss change", "score change", "loss (estimate)", "ms"]
        rows = [
            [f"{name} (detached)" if row.get("detached") else name, *(_number(row.get(key)) for key in keys)]
            for name, row in experts.items()
        ]
        parts.append(table(head, rows, f"Usage of the experts, {one.folder.name}"))
    return section("Usage of the experts", parts)


def gates(found: Sequence[Measured]) -> Html:
    """The panels of `tove gates`.

    Raises:
        UserError: A folder is not whole.
    """
    if not found:
        return section("Gate panels", [paragraph("None found; give folders of `tove gates` by --gates.")])
    parts: list[Html] = []
    for one in found:
        drawn = panels(one)
        parts.append(element("h3", f"{one.folder.name}: {one.report.get('checkpoint', '')}"))
        for image, file in drawn[:MOST_PANELS]:
            address = data_address(file.read_bytes(), "png")
            picture = Html(f'<img alt="{escaped(f"Gate panel of {image}")}" src="{address}">')
            parts.append(element("figure", [element("figcaption", image), picture], class_="panel"))
        if len(drawn) > MOST_PANELS:
            parts.append(paragraph(f"{len(drawn) - MOST_PANELS} more are in {one.folder}.", class_="soft"))
    return section("Gate panels", parts)


def _scores(found: Sequence[Evaluation]) -> Html:
    """Metrics in rows, overall and then the first of each part with its size; records in columns."""
    rows: list[list[Any]] = []
    groups = dict.fromkeys(group for one in found for group in one.record.get("groups", {}))
    for group in ("", *groups):
        values = [one.record["metrics"] if not group else one.record["groups"].get(group, {}) for one in found]
        names = list(dict.fromkeys(name for one in values for name in one if name not in _COUNTS))
        if group:
            names = [name for name in names if name != _SIZE][:1] + [name for name in names if name == _SIZE]
        rows += [[f"{group}: {name}" if group else name, *(_number(one.get(name)) for one in values)] for name in names]
    return table(["metric", *(one.model for one in found)], rows, f"Scores, {found[0].record['task']}")


def _warnings(found: Sequence[Evaluation]) -> list[Html]:
    """Which records cannot be compared with the first, what was wrong with the data, and the scorers' notes."""
    lines = []
    for one in found[1:]:
        if reasons := incomparable(found[0].record, one.record):
            lines.append(f"{found[0].model} and {one.model} are not comparable: {'; '.join(reasons)}")
    for one in found:
        lines += [f"{one.model}: {note}" for note in _list(one.record.get("notes"))]
        problems = one.record.get("problems")
        if isinstance(problems, dict):
            counts = [(kind, row.get("count")) for kind, row in problems.items() if isinstance(row, dict)]
            lines += [f"{one.model}: {count} x {kind}" for kind, count in counts]
    return [element("ul", [element("li", line) for line in lines])] if lines else []


def _about(found: Sequence[Evaluation]) -> Html:
    rows = [["folder", *(one.folder for one in found)]]
    rows += [[name.replace("_", " "), *(_said(one.record.get(name)) for one in found)] for name in _ABOUT_RECORD]
    return table(["", *(one.model for one in found)], rows, "How the scores were made")


def _examples(title: str, examples: Examples) -> list[Html]:
    note = [paragraph(examples.note, class_="soft")] if examples.note else []
    if not examples.shown:
        return [paragraph(element("strong", title), ": no examples.", class_="soft"), *note]
    shown = element("ul", [_example(example) for example in examples.shown], class_="examples")
    return [paragraph(element("strong", f"Examples of {title}")), *note, shown]


def _example(example: Example) -> Html:
    picture = Html(f'<img alt="The picture that is asked about" src="{escaped(example.picture)}">')
    kind = ("right", "✓ right") if example.is_right else ("wrong", "✗ wrong")
    return element(
        "li",
        [
            picture if example.picture else paragraph("(no picture)", class_="soft"),
            paragraph(example.question),
            paragraph(element("span", kind[1], class_=kind[0]), ": ", example.answer),
            *([] if example.is_right else [paragraph("expected: ", example.expected)]),
        ],
    )


def _accuracy(cell: Any) -> str:
    value = cell.get("accuracy") if isinstance(cell, dict) else None
    return f"{100 * value:.1f}" if isinstance(value, int | float) else "-"


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {entry}" for name, entry in value.items())
    return "-" if value is None else str(value)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
