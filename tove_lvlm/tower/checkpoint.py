"""A tower on disk: whole (frozen weights included) or light (`tove_fusion` and references).

Beside config.json lies sources.json: {"format": 1, "form": "whole" | "light", "clip": {...}, "experts": {NAME: {...}}},
each part with its source, revision, file, sha256 and licences.

See docs/design.md, "Saved towers".
"""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError

from .. import storage
from ..experts import Expert, ExpertHub, build_expert
from ..weights.sources import ChecksumError, fetch, from_record, verify
from .card import write_card
from .clip import FrozenCLIP, load_clip
from .configuration import ToVEVisionConfig
from .parts import SOURCES_FILE, SOURCES_FORMAT, read_sources

logger = logging.getLogger(__name__)

FUSION = "tove_fusion."


class Tower(Protocol):
    """What of a tower model its files are made from and filled into."""

    config: ToVEVisionConfig
    clip: FrozenCLIP | Expert
    """The base: a CLIP, or what else the config says."""
    experts: ExpertHub
    sources: dict[str, Any]
    """Where the frozen parts came from, as in SOURCES_FILE."""

    @property
    def _auto_class(self) -> Any: ...
    def state_dict(self) -> dict[str, torch.Tensor]: ...


def log_weights(model: Tower, where: str) -> None:
    """Say which weights a tower has after loading: two runs with the same SHA-256 saw through the same tower.

    Args:
        model: All of its weights whole, on any device.
        where: What it was read from, or the stage that starts with it.
    """
    if logger.isEnabledFor(logging.INFO):  # to hash gigabytes takes seconds
        digest = storage.fingerprint(model.state_dict())
        logger.info("%s: a tower with %s, sha256 %s", where, ", ".join(model.config.attached_names), digest[:16])


# ---- sources ----


def _checked_path(part: str, entry: Mapping[str, Any] | None, elsewhere: str | None) -> Path:
    """Where the weights of a frozen part are, after comparing their fingerprint."""
    if not entry or not (entry.get("source") or elsewhere):
        raise storage.WeightsError(f"{SOURCES_FILE} does not say where the weights of `{part}` come from")
    source = from_record(entry, elsewhere)
    location: object = source.pretrained
    try:
        location = path = fetch(source)
        verify(source, path)
    except storage.MissingWeightsError as error:
        raise storage.MissingWeightsError(
            f"weights of `{part}`: {error}; give their place with from_pretrained(..., sources={{'{part}': PATH}})"
        ) from error
    except ChecksumError as error:
        raise storage.WeightsError(
            f"weights of `{part}` at `{location}` are not those that the tower was trained with: {error}"
        ) from error
    return path


def load_base(model: Tower, path: Path) -> None:
    """Read the base's weights, all of them.

    Args:
        model: Tower; parameters keep their dtype and device.
        path: File or folder.

    Raises:
        MissingWeightsError: Nothing there.
        WeightsError: Truncated, or keys or shapes that do not fit; names file and first keys.
    """
    if isinstance(model.clip, Expert):
        model.clip.load_pretrained(path)
    else:
        load_clip(model.clip, path)


def load_expert(model: Tower, name: str, elsewhere: str | None = None) -> Expert:
    """A detached expert with its weights, from where the tower's sources say.

    Raises:
        WeightsError: The source is unknown, missing, or holds other weights.
    """
    expert = build_expert(next(entry for entry in model.config.experts if entry["name"] == name))
    if expert.has_weights:
        expert.load_pretrained(_checked_path(name, model.sources.get("experts", {}).get(name), elsewhere))
    return expert


# ---- writing ----


def save(
    model: Tower,
    save_whole: Callable[..., None],
    folder: str | os.PathLike[str],
    light: bool,
    **kwargs: Any,
) -> None:
    """Write a tower.

    Args:
        model: Tower.
        save_whole: `PreTrainedModel.save_pretrained`, bound.
        folder: Where.
        light: Only `tove_fusion` and references.
        **kwargs: For `save_whole`.

    Raises:
        ValueError: `push_to_hub` among the options, which would upload before all is written.
        WeightsError: A light tower has a frozen part of unknown origin.
    """
    if kwargs.pop("push_to_hub", False):
        raise ValueError("save_pretrained(push_to_hub=True) would upload a part of the tower; call push_to_hub(REPO)")
    if light:
        unknown = [part for part, entry in _parts(model) if not (entry or {}).get("source")]
        if unknown:
            raise storage.WeightsError(
                f"a light tower refers to its frozen parts, and it is not known where {', '.join(unknown)} came from; "
                "save it whole"
            )
        state = kwargs.pop("state_dict", None) or model.state_dict()
        kwargs["state_dict"] = {key: tensor for key, tensor in state.items() if key.startswith(FUSION)}
    save_whole(folder, **kwargs)
    if kwargs.get("is_main_process", True):
        # Here, because transformers' image processors import its auto classes, which import this package's model.
        from .image_processing import ToVEImageProcessor

        if model._auto_class is not None:  # loaded as remote code, which goes along when the tower is saved again
            ToVEImageProcessor.register_for_auto_class()  # type: ignore[no-untyped-call]
        ToVEImageProcessor.for_tower(model.config).save_pretrained(folder)
        form = "light" if light else "whole"
        storage.save_json(Path(folder) / SOURCES_FILE, {"format": SOURCES_FORMAT, "form": form, **model.sources})
        write_card(folder, SOURCES_FILE)


def _parts(model: Tower) -> list[tuple[str, Mapping[str, Any] | None]]:
    expert_sources = model.sources.get("experts", {})
    experts = [(name, expert_sources.get(name)) for name, expert in model.experts.items() if expert.has_weights]
    return [("clip", model.sources.get("clip")), *experts]


# ---- reading ----


def check_kind(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder that holds something else; transformers would build a random tower from it.

    Raises:
        MissingWeightsError: The folder has no config.json.
        WeightsError: Its config.json is that of another model.
    """
    if not Path(folder).is_dir():
        return  # a hub id, or a path that transformers will say is not there
    kind = storage.load_json(Path(folder) / "config.json").get("model_type")
    if kind != ToVEVisionConfig.model_type:
        hint = "; the tower of a LLaVA model is loaded with the model" if kind == "llava" else ""
        raise storage.WeightsError(
            f"folder `{folder}` is no saved tower: its config.json says `model_type: {kind}`; expected "
            f"`{ToVEVisionConfig.model_type}`{hint}"
        )


def load_light(
    cls: Callable[[ToVEVisionConfig], Any],
    folder: str | os.PathLike[str],
    config: ToVEVisionConfig | None = None,
    dtype: torch.dtype | str | None = None,
    sources: Mapping[str, str] | None = None,
    torch_dtype: torch.dtype | str | None = None,
    output_loading_info: bool = False,
    **kwargs: Any,
) -> Any:
    """Build a light tower: frozen parts from their sources, `tove_fusion` from the folder.

    Args:
        cls: Model class.
        folder: Of the light tower.
        config: In place of the folder's.
        dtype: Of the whole tower; "auto" and None take the one it was saved in.
        sources: Part -> where it is on this machine, in place of what sources.json says.
        torch_dtype: Older name of `dtype`.
        output_loading_info: Also return an (empty) report, as transformers does.
        **kwargs: transformers' options of loading; those that would change the result are refused.

    Raises:
        WeightsError: A frozen part is missing or is not the one the tower was trained with.
        ValueError: An option that a light tower cannot follow.
    """
    refused = sorted(
        key for key in ("device_map", "quantization_config", "state_dict", "key_mapping") if kwargs.get(key)
    )
    if refused:
        raise ValueError(f"a light tower is loaded on the CPU and cannot follow {', '.join(refused)}; use .to() after")
    folder, sources = Path(folder), dict(sources or {})
    config = config or ToVEVisionConfig.from_pretrained(folder)
    attention = kwargs.get("attn_implementation")
    if attention is not None:
        config._attn_implementation = attention
    model = cls(config)
    model.sources = read_sources(folder)
    load_base(model, _checked_path("clip", model.sources.get("clip"), sources.get("clip")))
    for name, expert in model.experts.items():
        if not expert.has_weights:
            continue
        entry = model.sources.get("experts", {}).get(name)
        expert.load_pretrained(_checked_path(name, entry, sources.get(name)))
    fusion = {key.removeprefix(FUSION): tensor for key, tensor in storage.load_tensors(folder).items()}
    storage.load_strict(model.tove_fusion, fusion, where=storage.weight_files(folder)[0])
    dtype = dtype or torch_dtype
    if dtype is None or dtype == "auto":
        dtype = getattr(config, "dtype", None) or torch.float32
    model = model.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype).eval()
    report: dict[str, Any] = {
        "missing_keys": set(),
        "unexpected_keys": set(),
        "mismatched_keys": set(),
        "error_msgs": [],
    }
    return (model, report) if output_loading_info else model


def load_whole(load: Callable[..., Any], folder: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
    """Load a whole tower with transformers and make sure that nothing of it is random.

    Args:
        load: `PreTrainedModel.from_pretrained`, bound.
        folder: Folder or hub id.
        *args: For `load`.
        **kwargs: For `load`.

    Raises:
        WeightsError: Weights are missing or truncated, or their keys are not those of the tower.
    """
    want_report = kwargs.pop("output_loading_info", False)
    if kwargs.pop("sources", None):
        raise ValueError("`sources` is for a light tower; this one holds its frozen weights itself")
    try:
        model, report = load(folder, *args, output_loading_info=True, **kwargs)
    except SafetensorError as error:
        raise storage.WeightsError(f"weights in `{folder}` are truncated or not safetensors: {error}") from error
    except storage.WeightsError as error:  # from the model's own check, which does not know the folder
        raise storage.WeightsError(f"weights in `{folder}`: {error}") from error
    detached = tuple(f"experts.{name}." for name in model.config.detached)
    unexpected = sorted(key for key in report["unexpected_keys"] if not key.startswith(detached))
    if unexpected:
        raise storage.WeightsError(
            f"weights in `{folder}` hold {len(unexpected)} tensors that the tower of its config.json has no place for "
            f"({', '.join(unexpected[:3])}, ...)"
        )
    if (Path(folder) / SOURCES_FILE).is_file():
        model.sources = read_sources(folder)
    return (model, report) if want_report else model
