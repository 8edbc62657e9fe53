"""Typed configuration: a YAML file, LAVIS's `--options a.b=c`, and a dataclass that says what is valid.

The schema is a tree of dataclasses; the file and the options must fit it exactly. Whatever does not fit is one
`ConfigError` whose single line names the dotted key, the value and what would have been valid. A field with the
metadata `DERIVED` is in no YAML: what was read for another key, so that it is read once and passed on typed.
"""

import dataclasses
import math
import os
import re
import types
import typing
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, Union

import yaml

from ..errors import ConfigError, hide
from ..registry import nearest
from ..storage import atomic_file
from .ranges import FINITE, Range, unfit

T = TypeVar("T")
DERIVED = {"yaml": False}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deprecated:
    """A key of an earlier version, still read with one warning. A schema lists its own as `DEPRECATED`, by name."""

    renamed: str | None = None
    """The key's present name; None where it is gone."""
    only: Any = None
    """Of a key that is gone, the one value that it could have."""
    values: Mapping[Any, Any] = dataclasses.field(default_factory=dict)
    """Values that are spelled otherwise now: old -> new."""


def load(schema: type[T], cfg_path: str | Path, options: typing.Sequence[str] = ()) -> T:
    """Read a YAML file, put the options over it and check the whole against `schema`.

    Args:
        schema: A dataclass whose fields may be dataclasses, lists, dicts, unions with None and plain types.
        cfg_path: The YAML file.
        options: `a.b=c` strings as given after `--options`.

    Raises:
        ConfigError: The file is absent or no YAML mapping, an option has no `=`, or a key or a value does not fit.
    """
    return parse(schema, read_yaml(cfg_path, options), where=str(cfg_path))


def read_yaml(cfg_path: str | Path, options: typing.Sequence[str] = ()) -> dict[str, Any]:
    """The file with the options over it as plain dicts and lists, interpolations resolved, unchecked.

    Raises:
        ConfigError: The file is absent or no YAML mapping, or an option has no `=`.
    """
    from omegaconf import OmegaConf  # here, because a tower saved with its code also loads where it is not installed

    path = Path(cfg_path)
    if not path.is_file():
        raise ConfigError(f"configuration file `{path}` does not exist (given as --cfg-path)")
    try:
        _hide_environment(path.read_text(encoding="utf-8"), *options)
        tree = OmegaConf.load(path)
        if not OmegaConf.is_dict(tree):
            raise ConfigError(f"{path}: expected `key: value` lines at the top level")
        for option in options:
            _put(tree, option)
        return typing.cast("dict[str, Any]", OmegaConf.to_container(tree, resolve=True))
    except ConfigError:
        raise
    except yaml.MarkedYAMLError as error:  # its text has lines of the file in it, which may be no configuration
        place = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        raise ConfigError(f"{path}{place}: not readable as YAML: {error.problem}") from error
    except Exception as error:  # the two libraries raise whatever they like: OSError of a file that is one number
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{path}: not readable as YAML: {reason}") from error


def _hide_environment(*texts: str) -> None:
    """What `${oc.env:NAME}` stands for may be a secret: messages show the name."""
    for name in re.findall(r"\$\{\s*oc\.env\s*:\s*([A-Za-z_]\w*)", " ".join(texts)):
        hide(os.environ.get(name, ""), f"${{oc.env:{name}}}")


def _put(tree: Any, option: str) -> None:
    """One `a.b=c` over the tree; `a.0.b` is an entry of a list."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    key, equals, text = option.partition("=")
    if not equals or not key:
        raise ConfigError(f"--options takes `a.b=c`, got `{option}`")
    tree_of_option = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))  # `???` is a value too
    value = typing.cast("dict[str, Any]", tree_of_option)["value"]
    try:
        OmegaConf.update(tree, key, value, merge=True)
    except (OmegaConfBaseException, ValueError, TypeError, IndexError) as error:
        raise ConfigError(f"--options `{option}` does not fit the file: {' '.join(str(error).split())}") from error


def parse(schema: type[T], mapping: Mapping[str, Any], where: str = "configuration", warn: bool = True) -> T:
    """Build the dataclass `schema` from plain dicts and lists.

    Args:
        schema: As for `load`. Its `DEPRECATED`, where it has one, maps names of earlier versions to `Deprecated`.
        mapping: The values.
        where: File or place named in the message.
        warn: Whether deprecated keys are named in a warning; what a checkpoint holds is nobody's to change.

    Raises:
        ConfigError: The first key or value that does not fit.
    """
    built: T = _build(schema, mapping, key="", where=where, warn=warn)
    return built


_WARNED: set[str] = set()
"""Messages of this process. Python's own count is lost whenever a library changes the filters."""


def warn_deprecated(message: str) -> None:
    """Warn the author of a config, once."""
    if message not in _WARNED:
        _WARNED.add(message)
        warnings.warn(message, FutureWarning, stacklevel=2)


def present_names(
    schema: type, block: Mapping[str, Any], key: str = "", where: str = "configuration", warn: bool = True
) -> dict[str, Any]:
    """A block with the keys and values of earlier versions as they are called now, each with a warning.

    Args:
        schema: Its dataclass.
        block: As it was written; not changed.
        key: Dotted key of the block, for messages.
        where: File or place named in messages.
        warn: As for `parse`.

    Raises:
        ConfigError: A key that is gone has another value than it could have, or a key is there under both names.
    """
    present = dict(block)
    for name, deprecated in getattr(schema, "DEPRECATED", {}).items():
        if name not in present:
            continue
        old, dotted = present.pop(name), _join(key, name)
        if deprecated.renamed is None:
            if old != deprecated.only:
                raise ConfigError(f"{where}: `{dotted}` is {_shown(old)}; valid: {deprecated.only}, or leave it out")
            advice = f"it was always {deprecated.only}; leave it out"
        else:
            new_name = _join(key, deprecated.renamed)
            if deprecated.renamed in present:
                raise ConfigError(f"{where}: `{dotted}` and `{new_name}` are the same key; keep the second")
            present[deprecated.renamed] = deprecated.values.get(old, old) if isinstance(old, str) else old
            advice = f"write `{new_name}: {present[deprecated.renamed]}`"
        if warn:
            warn_deprecated(f"{where}: `{dotted}` is deprecated: {advice}")
    return present


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain dicts and lists, ready for YAML or JSON; fields that no YAML has are left out."""
    plain: dict[str, Any] = _plain(config)
    return plain


def save_yaml(config: Any, path: str | Path) -> None:
    """Write the resolved configuration where a run keeps its files, whole or not at all."""
    text = yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value) if _in_yaml(field)]
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(entry) for entry in value)
    return value


def _in_yaml(field: dataclasses.Field[Any]) -> bool:
    return field.init and field.metadata.get("yaml", True)


def _build(schema: type, value: Any, key: str, where: str, warn: bool) -> Any:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: {_at(key)} expects a block of `key: value`, got {_shown(value)}")
    value = present_names(schema, value, key, where, warn)
    hints = typing.get_type_hints(schema)
    fields = {field.name: field for field in dataclasses.fields(schema) if _in_yaml(field)}
    for name in value:
        if name not in fields:
            raise ConfigError(f"{where}: unknown key `{_join(key, name)}`; {nearest(str(name), fields)}")
    arguments = {}
    for name, field in fields.items():
        dotted = _join(key, name)
        if name in value:
            arguments[name] = _fit(hints[name], value[name], dotted, where, warn)
            _check_numbers(arguments[name], range_of(schema, name) or FINITE, dotted, where)
            choices = field.metadata.get("choices")
            if choices is not None and arguments[name] not in choices:
                valid = " | ".join(str(choice) for choice in choices)
                raise ConfigError(f"{where}: `{dotted}` is {_shown(value[name])}; valid: {valid}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{where}: required key `{dotted}` is missing")
    try:
        return schema(**arguments)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    except ValueError as error:  # __post_init__ of a schema names its own fields
        raise ConfigError(f"{where}: in {_at(key)}: {error}") from error


def _fit(hint: Any, value: Any, key: str, where: str, warn: bool) -> Any:
    """`value` as the type that `hint` asks for; int passes for float, nothing else is converted."""
    origin = typing.get_origin(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in typing.get_args(hint):
            return None
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        for member in members[:-1]:
            try:
                return _fit(member, value, key, where, warn)
            except ConfigError:
                continue
        return _fit(members[-1], value, key, where, warn)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _build(hint, value, key, where, warn)
    if origin in (list, tuple):
        item = typing.get_args(hint)[0]
        if isinstance(value, list | tuple):
            return origin(_fit(item, entry, f"{key}[{index}]", where, warn) for index, entry in enumerate(value))
    elif origin is dict:
        item = typing.get_args(hint)[1]
        if isinstance(value, Mapping):
            return {name: _fit(item, entry, _join(key, name), where, warn) for name, entry in value.items()}
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _as_float(value)
    elif isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"{where}: {_at(key)} is {_shown(value)}; expected {_type_name(hint)}")


def _as_float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf if value > 0 else -math.inf


def range_of(schema: type, name: str) -> Range | None:
    """The range that a field states, or that the field of a base class does where a schema only changes the default."""
    for base in schema.__mro__:
        field = getattr(base, "__dataclass_fields__", {}).get(name)
        if field is not None and "range" in field.metadata:
            allowed: Range = field.metadata["range"]
            return allowed
    return None


def _check_numbers(value: Any, allowed: Range, key: str, where: str) -> None:
    """A number, or those of a list, against a field's range; what else a field holds has its own checks."""
    numbers = value if isinstance(value, list | tuple) else [value]
    for entry in numbers:
        if isinstance(entry, int | float) and not isinstance(entry, bool):
            expected = unfit(entry, allowed)
            if expected is not None:
                shown = f"`{key}` is {value}" if numbers is not value else f"`{key}` has {entry} in it"
                raise ConfigError(f"{where}: {shown}; expected {expected}")


def _join(key: str, name: Any) -> str:
    return f"{key}.{name}" if key else str(name)


def _at(key: str) -> str:
    return f"`{key}`" if key else "the top level"


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def _type_name(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint)) if typing.get_origin(hint) is None else str(hint)
