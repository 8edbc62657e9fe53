"""A checkpoint written with other experts attached, in the form it has: only their tensors come or go.

Nothing is loaded and nothing serialised anew. A tower and a merged model keep every other tensor's bytes; an adapter
and stage 1's folder hold no expert and only say `model.detached`. What belongs to a run and not to the model
(checkpoints, logs, stage 1 below stage 2) is left behind.
"""

import contextlib
import fnmatch
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ..config import UserError
from ..lvlm.light import MODEL_FILE, PROJECTOR_FILE
from ..lvlm.loading import ADAPTER, MERGED, STAGE1, TOWER, LoadedCheckpoint
from ..storage import WeightsError, atomic_dir, weight_files
from .attachment import CONFIG, no_experts, read_attachment, vision_block
from .tensor_files import TensorAt, read_header, write_file

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_FUSION = "tove_fusion."
_LIGHT_WEIGHTS = {ADAPTER: "adapter_model.safetensors", STAGE1: PROJECTOR_FILE}
_ABOUT = (
    "*config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template*",
    "sources.json",
    MODEL_FILE,
    "*.md",
    "LICENSE*",
    "NOTICE*",
)


# ---- which files and tensors are the model's ----


def model_files(kind: str, folder: Path) -> list[Path]:
    """The files that make up the model; of a merged folder also those of the `adapter/` in it.

    Raises:
        WeightsError: There are no weights, or a shard is missing.
    """
    files = {path for path in folder.iterdir() if path.is_file() and _matches(path.name)}
    files |= {folder / _LIGHT_WEIGHTS[kind]} if kind in _LIGHT_WEIGHTS else set(weight_files(folder))
    if kind not in _LIGHT_WEIGHTS and (index := _index(folder)):
        files.add(index)
    if has_adapter(kind, folder):
        files.update(model_files(ADAPTER, folder / ADAPTER))
    return sorted(files)


def has_adapter(kind: str, folder: Path) -> bool:
    """Whether stage 2's adapter lies in a merged folder."""
    return kind == MERGED and (folder / ADAPTER / "adapter_config.json").is_file()


def locate_tensors(kind: str, folder: Path) -> dict[str, TensorAt]:
    """Every tensor of the folder's own weights, by name.

    Raises:
        WeightsError: The weights are missing, truncated or not safetensors.
    """
    files = [folder / _LIGHT_WEIGHTS[kind]] if kind in _LIGHT_WEIGHTS else weight_files(folder)
    return {name: tensor for file in files for name, tensor in read_header(file).tensors.items()}


def tower_prefix(tensors: Iterable[str]) -> str | None:
    """What the names of the tower's tensors begin with; None when there is no `tove_fusion` among them."""
    return next((name.split(_FUSION, 1)[0] for name in tensors if _FUSION in name), None)


def experts_by_tensor(tensors: Iterable[str]) -> dict[str, str]:
    """Name of every tensor that is a frozen expert's weight, and that expert's name."""
    prefix = f"{tower_prefix(tensors)}experts."
    return {name: name[len(prefix) :].split(".", 1)[0] for name in tensors if name.startswith(prefix)}


def is_light(folder: Path) -> bool:
    """Whether a tower's folder only refers to its frozen parts."""
    from ..tower.checkpoint import is_light

    return is_light(folder)


def _matches(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in _ABOUT)


def _index(folder: Path) -> Path | None:
    """The index of the shards, where the weights are in shards."""
    index = folder / _INDEX
    return index if index.is_file() and not (folder / _SINGLE).is_file() else None


def _renew_card(folder: Path) -> None:
    """The copied card names other experts."""
    from ..tower.card import write_card
    from ..tower.parts import SOURCES_FILE

    write_card(folder, SOURCES_FILE)


# ---- writing ----


def save(loaded: LoadedCheckpoint, output: str | Path) -> list[str]:
    """Write a checkpoint with the experts that its tower has attached at this moment.

    Args:
        loaded: From `open_checkpoint`; what is written comes from its folder, not from memory.
        output: New folder.

    Returns:
        The kinds written: the checkpoint's own, and `adapter` where one lies in a merged folder.

    Raises:
        UserError: `output` exists, is the input or lies in it; the model has no ToVE tower; an expert is attached in
            memory whose weights the folder does not hold.
    """
    if loaded.tower is None:
        raise no_experts(loaded.folder)
    with new_folder(output, loaded.folder) as writing:
        return write(loaded.kind, loaded.folder, writing, loaded.tower.config.detached)


@contextlib.contextmanager
def new_folder(output: str | Path, *sources: Path) -> Iterator[Path]:
    """A folder to write in that becomes `output` at the end, or leaves nothing when something fails.

    Raises:
        UserError: `output` exists, or is or lies in one of `sources`.
    """
    output = Path(output)
    path = output.resolve()
    for source in map(Path, sources):
        if path == source.resolve() or source.resolve() in path.parents:
            raise UserError(f"`{output}` is or lies in the input `{source}`, which is not changed; name another folder")
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"`{output}` exists already; name a new folder, or remove it first")
    with contextlib.ExitStack() as stack:
        try:
            writing = stack.enter_context(atomic_dir(output))
        except OSError as error:
            raise UserError(f"`{output}` cannot be written: {error}") from error
        yield writing


def write(
    kind: str,
    source: Path,
    target: Path,
    detached: Sequence[str],
    extra: Mapping[str, TensorAt] | None = None,
    layout: Path | None = None,
) -> list[str]:
    """Write the model in `source` into the empty folder `target`.

    Args:
        kind: As `locate` says.
        source: Not changed.
        target: Exists, empty.
        detached: All the experts that are detached in what is written, in the order of the gate's columns.
        extra: Tensors of experts that `source` does not hold.
        layout: Folder whose files say which tensor goes where; none takes `source`.

    Returns:
        The kinds written.

    Raises:
        UserError: An expert's weights are neither in `source` nor in `extra`, or the disk refuses.
        WeightsError: The weights cannot be read.
    """
    try:
        return _write(kind, source, target, detached, extra or {}, layout or source)
    except OSError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"a checkpoint cannot be written beside `{target.parent}`: {error}") from error


def _write(
    kind: str, source: Path, target: Path, detached: Sequence[str], extra: Mapping[str, TensorAt], layout: Path
) -> list[str]:
    detached = list(detached)
    files = [path for path in model_files(kind, source) if path.parent == source]
    for path in files:
        if path.name not in (CONFIG, MODEL_FILE, _INDEX) and path.suffix != ".safetensors":
            shutil.copyfile(path, target / path.name)
    if kind in (TOWER, MERGED):
        attached = [name for name in read_attachment(kind, source).expert_names if name not in detached]
        arrange(layout, target, _chosen_tensors(kind, source, attached, extra))
        _copy_if_there(source / MODEL_FILE, target)
    else:
        shutil.copyfile(source / _LIGHT_WEIGHTS[kind], target / _LIGHT_WEIGHTS[kind])
        _edit_json(source / MODEL_FILE, target, lambda model_info: model_info["model"].update(detached=detached))
    if (source / CONFIG).is_file():
        _edit_json(source / CONFIG, target, lambda config: vision_block(config, source).update(detached=detached))
    if kind == TOWER:
        _renew_card(target)
    if not has_adapter(kind, source):
        return [kind]
    (target / ADAPTER).mkdir()
    return [kind, *write(ADAPTER, source / ADAPTER, target / ADAPTER, detached)]


def _chosen_tensors(kind: str, source: Path, attached: list[str], extra: Mapping[str, TensorAt]) -> dict[str, TensorAt]:
    tensors = {**locate_tensors(kind, source), **extra}
    if is_light(source):
        return tensors
    owners = experts_by_tensor(tensors)
    absent = [name for name in attached if name not in owners.values()]
    if absent:
        raise UserError(f"`{source}` does not hold the weights of `{absent[0]}`; bring it back with `tove attach`")
    return {name: at for name, at in tensors.items() if name not in owners or owners[name] in attached}


def arrange(layout: Path, target: Path, tensors: Mapping[str, TensorAt]) -> None:
    """Write tensors in the files, and in the order, that another folder has them in.

    Args:
        layout: Folder with safetensors, whole or in shards; a tensor of it that is not in `tensors` is left out.
        target: Where.
        tensors: Name to where its bytes are: in `layout`, or elsewhere.

    Raises:
        WeightsError: A tensor has no place in `layout`, or the weights are not safetensors.
    """
    remaining = dict(tensors)
    dropped: dict[str, TensorAt] = {}
    for file in weight_files(layout):
        header = read_header(file)
        dropped |= {name: at for name, at in header.tensors.items() if name not in tensors}
        own_tensors = {name: remaining.pop(name) for name in header.tensors if name in remaining}
        if own_tensors == header.tensors:
            shutil.copyfile(file, target / file.name)
        elif own_tensors:
            write_file(target / file.name, own_tensors, header.metadata)
    if remaining:
        raise WeightsError(
            f"`{layout}` has no place for {len(remaining)} tensors ({', '.join(sorted(remaining)[:3])}, ...)"
        )
    if index := _index(layout):
        _edit_json(index, target, lambda index: _shorten_index(index, dropped))


def _shorten_index(index: dict, dropped: Mapping[str, TensorAt]) -> None:
    index["weight_map"] = {name: file for name, file in index["weight_map"].items() if name not in dropped}
    sizes = {"total_size": sum(at.num_bytes for at in dropped.values())}
    sizes["total_parameters"] = sum(at.numel for at in dropped.values())
    for key, size in sizes.items():
        if key in index.get("metadata", {}):
            index["metadata"][key] -= size


def _copy_if_there(path: Path, target: Path) -> None:
    if path.is_file():
        shutil.copyfile(path, target / path.name)


def _edit_json(path: Path, target: Path, edit: Callable[[dict], None]) -> None:
    """Copy a JSON file with a change, laid out as transformers and this package lay it out."""
    text = path.read_text(encoding="utf-8")
    value = json.loads(text)
    edit(value)
    end = "\n" if text.endswith("\n") else ""
    (target / path.name).write_text(json.dumps(value, indent=2) + end, encoding="utf-8")
