"""A saved tower that also loads where this package is not installed: its source files go along.

transformers' remote code is a flat folder whose files import each other as `from .name import thing`. The files are
made from the package when a tower is exported: each module that the tower needs, line for line but for its imports.

See docs/hosts.md, "Remote code".
"""

import ast
import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .. import storage
from .card import write_card
from .parts import SOURCES_FILE

if TYPE_CHECKING:
    from .modeling import ToVEVisionModel

PACKAGE = __name__.split(".")[0]
_STEM = "tove"
_CLASSES = {
    "AutoConfig": ("tower.configuration", "ToVEVisionConfig"),
    "AutoModel": ("tower.modeling", "ToVEVisionModel"),
    "AutoImageProcessor": ("tower.image_processing", "ToVEImageProcessor"),
}
# Where an absolute import stands for a package that transformers does not bring, transformers' own check of a file's
# imports must not see it: the tower works without, until a function that needs it is called.
_BROUGHT = {"torch", "numpy", "transformers", "safetensors", "huggingface_hub", "yaml"}


def save_remote_code(tower: "ToVEVisionModel", folder: str | os.PathLike[str]) -> Path:
    """Write a whole tower that `AutoModel.from_pretrained(folder, trust_remote_code=True)` loads without this package.

    Args:
        tower: With its weights.
        folder: Written whole or not at all; it must be empty or not there.

    Returns:
        The folder.

    Raises:
        UserError: There is something in the folder.
    """
    with storage.new_folder(folder) as writing:
        tower.save_pretrained(writing)
        for name, text in bundle().items():
            (writing / name).write_text(text, encoding="utf-8")
        references = {auto: f"{_flat(module)}.{name}" for auto, (module, name) in _CLASSES.items()}
        for file, autos in (
            ("config.json", ("AutoConfig", "AutoModel")),
            ("preprocessor_config.json", ("AutoImageProcessor",)),
        ):
            content = storage.load_json(writing / file)
            storage.save_json(writing / file, content | {"auto_map": {auto: references[auto] for auto in autos}})
        write_card(writing, SOURCES_FILE)  # which then names the code
    return Path(folder)


def bundle() -> dict[str, str]:
    """File name -> source of all modules that a saved tower needs, with flat imports.

    Raises:
        RuntimeError: A module imports this package by its absolute name.
    """
    entries = [module for module, _ in _CLASSES.values()]
    waiting, sources = [*entries, "experts.families"], {}
    while waiting:
        module = waiting.pop()
        if module not in sources:
            sources[module], needed = _flatten(module)
            waiting += needed
    # transformers copies the files that an entry file, and those in turn, name in lines of this form.
    named = "".join(
        f"    from .{_flat(module)} import __doc__ as _{_flat(module)}  # noqa\n" for module in sorted(sources)
    )
    for module in entries:
        sources[module] += f"\n\nif False:  # what transformers must copy too\n{named}"
    return {f"{_flat(module)}.py": text for module, text in sorted(sources.items())}


def _families() -> tuple[list[str], list[str]]:
    """(modules of the expert families' fields, modules of their classes), those of a plugin outside left out."""
    from ..experts import EXPERTS
    from ..experts.schema import EXPERT_CONFIGS

    fields = _modules(EXPERT_CONFIGS.get(name) for name in EXPERT_CONFIGS.names())
    return fields, _modules(EXPERTS.get(name) for name in EXPERTS.names())


def _modules(classes: Iterable[type]) -> list[str]:
    """Modules of this package that these classes are of."""
    modules = dict.fromkeys(item.__module__ for item in classes)
    return [module.removeprefix(f"{PACKAGE}.") for module in modules if module.startswith(f"{PACKAGE}.")]


def _flat(module: str) -> str:
    """`tove_tower_modeling` of `tower.modeling`."""
    return f"{_STEM}_{module.replace('.', '_')}"


def _flatten(module: str) -> tuple[str, list[str]]:
    """(source with flat imports and without registrations, modules of this package that it needs)."""
    if module == "experts":
        return _flat_experts()
    if module == "experts.families":
        return _flat_families()
    imported = importlib.import_module(f"{PACKAGE}.{module}")
    source = inspect.getsource(imported)
    folder = module if hasattr(imported, "__path__") else module.rpartition(".")[0]
    lines, needed = source.splitlines(), []
    changes: list[tuple[int, int, list[str]]] = []
    for node in ast.walk(ast.parse(source)):
        new: list[str] | None = None
        if isinstance(node, ast.ImportFrom) and node.level:
            new, modules = _flat_import(node, folder)
            needed += modules
        elif isinstance(node, ast.Import | ast.ImportFrom):
            new = _guarded(node, module)
        elif isinstance(node, ast.Expr) and _is_registration(node.value):
            new = []  # where this package is installed, its own classes stay the registered ones
        if new is not None and isinstance(node, ast.stmt):
            changes.append(
                (node.lineno - 1, node.end_lineno or node.lineno, [" " * node.col_offset + line for line in new])
            )
    for start, end, new in sorted(changes, reverse=True):
        lines[start:end] = new
    header = f"# Generated from {PACKAGE}.{module}; transformers reads it with trust_remote_code=True."
    return "\n".join([header, *lines]) + "\n", needed


def _flat_import(node: ast.ImportFrom, folder: str) -> tuple[list[str], list[str]]:
    """The lines for one relative import of a module in `folder`, and the modules that it needs."""
    parts = folder.split(".") if folder else []
    base = parts[: len(parts) - node.level + 1]  # the folder that the dots stand for
    if node.module is not None:  # from ..experts.base import Expert
        target = ".".join([*base, node.module])
        return [f"from .{_flat(target)} import {', '.join(map(ast.unparse, node.names))}"], [target]
    modules = [".".join([*base, alias.name]) for alias in node.names]  # from .. import storage
    lines = [
        f"from . import {_flat(target)} as {alias.asname or alias.name}"
        for target, alias in zip(modules, node.names, strict=True)
    ]
    return lines, modules


def _guarded(node: ast.Import | ast.ImportFrom, module: str) -> list[str] | None:
    """A `try` around the import of a package that transformers does not bring; None where nothing is to change."""
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    tops = {name.split(".")[0] for name in names}
    if PACKAGE in tops:
        raise RuntimeError(
            f"{PACKAGE}.{module} line {node.lineno}: import {names[0]} relatively, for the exported code"
        )
    if tops <= _BROUGHT | sys.stdlib_module_names:
        return None
    return ["try:", f"    {ast.unparse(node)}", "finally:", "    pass"]


def _is_registration(call: ast.expr) -> bool:
    """Whether an expression is `AutoSomething.register(...)`."""
    return isinstance(call, ast.Call) and re.match(r"Auto\w+\.register$", ast.unparse(call.func)) is not None


def _flat_experts() -> tuple[str, list[str]]:
    """The package `experts`, whose names load on first use, as a module that imports them at once."""
    from .. import experts

    modules = {name: f"experts.{module}" for name, module in experts._HOMES.items()}
    _, classes = _families()
    lines = [f"from . import {_flat(module)}  # noqa" for module in classes]
    lines += [f"from .{_flat(module)} import {name}  # noqa" for name, module in sorted(modules.items())]
    header = f"# Generated from {PACKAGE}.experts: every family registers its class."
    return "\n".join([header, *lines]) + "\n", sorted({*modules.values(), *classes})


def _flat_families() -> tuple[str, list[str]]:
    """The package `experts.families`, whose folders are looked through by name, as a module that imports the fields."""
    fields, _ = _families()
    lines = [f"from . import {_flat(module)}  # noqa" for module in fields]
    header = f"# Generated from {PACKAGE}.experts.families: every family registers its fields."
    return "\n".join([header, *lines]) + "\n", fields
