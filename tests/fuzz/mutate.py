"""Ways to break an input that is right. A mutation is plain JSON, so that a case can be written down and run again.

edits of a JSON value     [place, kind, value]: place counts the nodes of the value, whatever it has become by then
edits of bytes            [place, kind, number, hex]: place is a share of the length, in thousandths
"""

import copy
from typing import Any

from hypothesis import strategies as st

EXTREMES = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    7,
    0.5,
    -0.0,
    1e-320,
    1e308,
    float("nan"),
    float("inf"),
    -float("inf"),
    2**31 - 1,
    2**31,
    2**63,
    10**400,
    "",
    " ",
    "\0",
    "\n",
    "a\nb",
    "\ud800",
    "\u2028",
    "nan",
    "none",
    "null",
    "0",
    "1e5",
    "..",
    "../x",
    "/",
    "~nobody/x",
    "x" * 300,
    "x" * 5000,
    "{question}",
    "{0}",
    "<image>",
    [],
    {},
    [[]],
    [None],
    {"": {}},
    {"a": [1, {"b": None}]},
    [[[[[[[[[[]]]]]]]]]],
)
"""Values that readers stumble over."""
NUMBERS = (float("nan"), -1, 0, float("inf"), 2, 0.5, True, -float("inf"), 1e308, 2**31, -0.5)
"""What a number is set to, by the place's number."""
KINDS_JSON = ("set", "set", "set", "number", "number", "drop", "twice", "rename", "wrap", "unwrap", "nest", "swap")
KINDS_BYTES = ("cut", "drop", "flip", "put", "over", "zero", "twice", "head")


def values(*more: Any) -> st.SearchStrategy:
    """JSON values: the extreme ones, those of a target, and any.

    Args:
        *more: Of a target; they are drawn as often as the extreme ones.
    """
    plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    anything = st.recursive(
        plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    )
    return st.sampled_from(EXTREMES) | st.sampled_from([*more, *EXTREMES[:9]]) | anything


def json_edits(*more: Any, max_size: int = 3) -> st.SearchStrategy[list[list[Any]]]:
    """Edits of a JSON value.

    Args:
        *more: Values that may be set, besides the usual ones.
        max_size: Number of edits.
    """
    edit = st.tuples(st.integers(0, 400), st.sampled_from(KINDS_JSON), values(*more)).map(list)
    return st.lists(edit, max_size=max_size)


def byte_edits(max_size: int = 3, snippets: tuple[bytes, ...] = ()) -> st.SearchStrategy[list[list[Any]]]:
    """Edits of bytes.

    Args:
        max_size: Number of edits.
        snippets: What may be put in, besides any bytes.
    """
    known = (b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"[" * 3000, b'"', b"}", b"NaN", b"1" * 5000, *snippets)
    put = (st.sampled_from(known) | st.binary(max_size=8)).map(bytes.hex)
    edit = st.tuples(st.integers(0, 1000), st.sampled_from(KINDS_BYTES), st.integers(0, 64), put).map(list)
    return st.lists(edit, max_size=max_size)


def rarely(strategy: st.SearchStrategy, usual: Any) -> st.SearchStrategy:
    """A strategy in one case of five, else the usual value."""
    return st.integers(0, 4).flatmap(lambda number: strategy if number == 4 else st.just(usual))


def edited(value: Any, edits: list[list[Any]]) -> Any:
    """A JSON value with edits made one after the other; the value itself stays as it is."""
    root = [copy.deepcopy(value)]
    for place, kind, new in edits:
        places = list(_places(root))
        if kind == "number":
            kind, new = "set", NUMBERS[place % len(NUMBERS)]
            places = [at for at in places if isinstance(at[0][at[1]], int | float)] or places
        holder, key = places[place % len(places)]
        _edit(holder, key, kind, copy.deepcopy(new), root)
    return root[0] if root else None


def edited_bytes(content: bytes, edits: list[list[Any]]) -> bytes:
    """Bytes with edits made one after the other."""
    for place, kind, number, put in edits:
        at, new = place * len(content) // 1000, bytes.fromhex(put)
        if kind == "head":  # where formats keep their lengths
            at, kind = min(number, len(content)), "over"
        content = {
            "cut": content[:at],
            "drop": content[:at] + content[at + number :],
            "flip": content[:at] + bytes(255 - one for one in content[at : at + 1]) + content[at + 1 :],
            "put": content[:at] + new + content[at:],
            "over": content[:at] + new + content[at + len(new) :],
            "zero": content[:at] + bytes(len(content[at : at + number])) + content[at + number :],
            "twice": content[:at] + content[at : at + number] * 2 + content[at + number :],
        }[kind]
    return content


def _places(holder: Any):
    """Every (container, key) below a container, top down."""
    keys = list(holder) if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
    for key in keys:
        yield holder, key
        yield from _places(holder[key])


def _edit(holder: Any, key: Any, kind: str, new: Any, root: list[Any]) -> None:
    old = holder[key]
    if kind == "drop" and holder is not root:
        del holder[key]
    elif kind == "twice" and isinstance(holder, list) and holder is not root:
        holder.insert(key, copy.deepcopy(old))
    elif kind == "rename" and isinstance(holder, dict):
        holder[new if isinstance(new, str) else "renamed"] = holder.pop(key)
    elif kind == "wrap":
        holder[key] = [old]
    elif kind == "unwrap" and isinstance(old, list) and old:
        holder[key] = old[0]
    elif kind == "nest":
        holder[key] = {"value": old}
    elif kind == "swap" and isinstance(holder, dict) and len(holder) > 1:
        other = next(name for name in holder if name != key)
        holder[key], holder[other] = holder[other], holder[key]
    else:
        holder[key] = new
