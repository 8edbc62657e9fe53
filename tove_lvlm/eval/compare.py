"""Two score records side by side, unless they answer different questions.

Comparable are scores of one task under one convention, of the same questions in the same words, from the same label
files. How they were answered (model, decoding, dtype, machine) may differ: that is what is compared, and it is listed.
"""

from collections.abc import Mapping
from typing import Any

from ..config import UserError

_SAME = ("task", "form", "convention", "ocr", "limit", "num_items")
_MAY_DIFFER = ("model", "decoding", "dtype", "device", "hardware", "world_size", "batch_size", "versions", "commit")


def incomparable(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Why two records cannot be compared; empty when they can."""
    reasons = [
        f"{name}: {first.get(name)} and {second.get(name)}" for name in _SAME if first.get(name) != second.get(name)
    ]
    prompts: list[Any] = [record.get("prompt") for record in (first, second)]
    if None in prompts:
        reasons.append("prompt: not known of answers that came without it")
    elif prompts[0]["sha256"] != prompts[1]["sha256"]:
        reasons.append(f"prompt: {prompts[0]['template']!r} and {prompts[1]['template']!r}")
    data = [sorted(record.get("labels", {}).values()) for record in (first, second)]
    if data[0] != data[1]:
        names = [", ".join(record.get("labels", {})) for record in (first, second)]
        reasons.append(
            f"label files: {names[0]} and {names[1]}" + (" of other content" if names[0] == names[1] else "")
        )
    elif not reasons and first.get("questions_sha256") != second.get("questions_sha256"):
        reasons.append("questions: other ones out of the same files")
    return reasons


def compare(first: Mapping[str, Any], second: Mapping[str, Any], force: bool = False) -> dict[str, Any]:
    """Two records side by side.

    Args:
        first: A score record.
        second: Another.
        force: Compare what is not comparable; the reasons are then in the result.

    Returns:
        `metrics`: rows of `group` (empty: overall), `name`, `first`, `second`, `difference`, the values None where only
        one record has the metric; `differs`: what else differs, name -> both; `incomparable`: reasons.

    Raises:
        UserError: They are not comparable.
    """
    reasons = incomparable(first, second)
    if reasons and not force:
        raise UserError(f"not comparable: {'; '.join(reasons)} (--force compares all the same)")
    rows = _rows("", first["metrics"], second["metrics"])
    for group in dict.fromkeys([*first["groups"], *second["groups"]]):
        rows += _rows(group, first["groups"].get(group, {}), second["groups"].get(group, {}))
    differs = {name: (first.get(name), second.get(name)) for name in _MAY_DIFFER if first.get(name) != second.get(name)}
    return {"metrics": rows, "differs": differs, "incomparable": reasons}


def _rows(group: str, first: Mapping[str, float], second: Mapping[str, float]) -> list[dict[str, Any]]:
    rows = []
    for name in dict.fromkeys([*first, *second]):
        a, b = first.get(name), second.get(name)
        difference = None if a is None or b is None else b - a
        rows.append({"group": group, "name": name, "first": a, "second": b, "difference": difference})
    return rows
