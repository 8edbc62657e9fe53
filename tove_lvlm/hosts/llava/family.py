"""LLaVA and its relatives: what differs between them, as far as the plugin is concerned.

See docs/hosts.md, "LLaVA family".
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ...config import UserError
from ..old_transformers import lent_names


@dataclass(frozen=True, kw_only=True)
class Host:
    """One host's source layout."""

    title: str
    marker: str
    """A module that only this host has."""
    distributions: tuple[str, ...]
    """Names under which it is installed, for its version."""
    replaced: tuple[tuple[str, str], ...]
    """(module, function) that the plugin puts its own in the place of; empty where the host has a register."""
    needs: tuple[tuple[str, str], ...] = ()
    """(module, name) that must be there besides; `llava.model` hides why its own import failed."""
    registers: tuple[tuple[str, str], ...] = ()
    """(module, decorator) that the plugin files its classes with."""
    old_names: bool = False
    """Whether its modules import names that transformers 5 no longer has (all carry a copy of BLIP-2's Q-Former)."""
    note: str = ""
    """What else is different."""


_ENCODER = ("llava.model.multimodal_encoder.builder", "build_vision_tower")
_PROJECTOR = ("llava.model.multimodal_projector.builder", "build_vision_projector")
_ARCH = "llava.model.llava_arch"
_LLAVA = (
    _ENCODER,
    (_ARCH, "build_vision_tower"),
    _PROJECTOR,
    (_ARCH, "build_vision_projector"),
    ("llava.model.builder", "load_pretrained_model"),
)
_MODEL = (("llava.model.language_model.llava_llama", "LlavaLlamaForCausalLM"),)

# The first whose marker is found is the host: LLaVA-NeXT's package is called `llava` too.
FAMILY = {
    "llava_next": Host(
        title="LLaVA-NeXT",
        marker="llava.model.multimodal_resampler.builder",
        distributions=("llava",),
        replaced=_LLAVA,
        needs=_MODEL,
        old_names=True,
        note="builds the tower eagerly unless `delay_load` is set, also on the meta device; gives the projector "
        "`vision_cfg`; reads `image_size`; can ask to train the tower (`mm_tunable_parts`)",
    ),
    "llava": Host(
        title="LLaVA",
        marker="llava.model.llava_arch",
        distributions=("llava-torch", "llava"),
        replaced=_LLAVA,
        needs=_MODEL,
    ),
    "tinyllava": Host(
        title="TinyLLaVA Factory",
        marker="tinyllava.model.vision_tower",
        distributions=("tinyllava",),
        replaced=(),
        registers=(
            ("tinyllava.model.vision_tower", "register_vision_tower"),
            ("tinyllava.model.connector", "register_connector"),
        ),
        old_names=True,
        note="the tower must be a saved folder; the connector is `tove_mlp2x_gelu`; names match by substring",
    ),
}


def find_host(name: str | None = None) -> tuple[str, Host]:
    """The installed host.

    Args:
        name: One of FAMILY; none takes the first that is installed.

    Raises:
        ImportError: There is none.
    """
    for key, host in FAMILY.items():
        if name in (None, key) and _exists(host.marker):
            return key, host
    expected = FAMILY[name].title if name is not None else "LLaVA"
    raise ImportError(
        f"{expected} is not installed in this environment: pip install --no-deps llava-torch==1.2.2.post1, or put the "
        "source tree of the host on PYTHONPATH"
    )


def check_surface(host: Host) -> dict[tuple[str, str], ModuleType]:
    """Import the modules whose functions the plugin replaces or calls.

    Returns:
        (module, function) -> module.

    Raises:
        UserError: A module or a function is not there: the host is of a version that this plugin does not know.
    """
    surface = {}
    for module_name, function in (*host.needs, *host.replaced, *host.registers):
        try:
            with lent_names() if host.old_names else contextlib.nullcontext():
                module = importlib.import_module(module_name)
        except ImportError as error:
            raise UserError(f"{_about(host)}: `{module_name}` cannot be imported: {error}") from error
        if not callable(getattr(module, function, None)):
            raise UserError(
                f"{_about(host)} has no `{module_name}.{function}`, which the ToVE plugin builds on: this "
                "version is not supported (tested: llava-torch 1.2.2.post1)"
            )
        surface[module_name, function] = module
    return surface


def _about(host: Host) -> str:
    for name in host.distributions:
        try:
            return f"{host.title} ({name} {importlib.metadata.version(name)})"
        except importlib.metadata.PackageNotFoundError:
            continue
    return host.title


def _exists(module: str) -> bool:
    """Whether the module's file is there; nothing is imported, because that may fail without the names above."""
    package, _, rest = module.partition(".")
    spec = importlib.util.find_spec(package)
    paths = [Path(path, *rest.split(".")) for path in (spec and spec.submodule_search_locations) or ()]
    return any(path.with_suffix(".py").is_file() or path.is_dir() for path in paths)
