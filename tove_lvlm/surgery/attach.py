"""Experts that were detached, back from the checkpoint that still has them, bit for bit.

Only the experts' tensors are taken from the original; everything else stays what it is in the checkpoint, in the files
and the order of the original. A checkpoint that holds no expert itself (an adapter, stage 1's folder, a light tower)
only has to say that they are attached again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checkpoints import Checkpoint, detect
from ..checkpoints.experts import (
    CONFIG,
    Attachment,
    experts_by_tensor,
    mean_terms_by_tensor,
    tower_prefix,
    vision_block,
)
from ..checkpoints.tensor_files import TensorAt, fingerprint
from ..config import UserError
from ..registry import nearest
from ..storage import load_json, new_folder


def attach(
    folder: str | Path, output: str | Path, original: str | Path | None = None, experts: Sequence[str] = ()
) -> dict[str, Any]:
    """Write a checkpoint with detached experts attached again.

    Args:
        folder: The checkpoint that lacks them; not changed.
        output: New folder.
        original: The checkpoint that it was detached from. One that only refers to its experts can do without.
        experts: Which; all that are detached when left out.

    Returns:
        Plain values: `kind`, `attached` (those that came back), `detached` (those still away), `written` (kinds).

    Raises:
        UserError: There is nothing to attach, `original` is another model or lacks an expert, `output` is in the way.
        WeightsError: Weights are missing or truncated.
    """
    checkpoint = detect(folder)
    attachment = checkpoint.experts()
    selected = _selected(attachment, experts, checkpoint.folder)
    extra: dict[str, TensorAt] = {}
    layout = None
    if original is not None:
        source = _same_model(checkpoint, attachment, Path(original))
        if checkpoint.holds_experts:
            extra, layout = _experts_of(source, selected), source.folder
    elif checkpoint.holds_experts:
        raise UserError(f"`{folder}` does not hold {', '.join(selected)}; name the checkpoint that does with `--from`")
    detached = [name for name in attachment.detached if name not in selected]
    sources = [Path(folder), *([Path(original)] if original is not None else [])]
    with new_folder(output, *sources) as writing:
        written = checkpoint.with_experts(writing, detached, extra=extra, layout=layout)
    return {"kind": checkpoint.kind, "attached": selected, "detached": detached, "written": written}


def _selected(attachment: Attachment, experts: Sequence[str], detached_path: Path) -> list[str]:
    for name in experts:
        if name not in attachment.expert_names:
            raise UserError(f"the model has no expert `{name}`; {nearest(name, attachment.expert_names)}")
        if name not in attachment.detached:
            raise UserError(f"`{name}` is attached already; detached: {', '.join(attachment.detached) or 'none'}")
    never = [name for name in experts if name in attachment.fixed]
    if never:
        raise UserError(
            f"`{never[0]}` is detached in the tower that `{detached_path}` refers to, so the model was never trained "
            "with it"
        )
    selected = [
        name for name in attachment.detached if name not in attachment.fixed and (name in experts or not experts)
    ]
    if not selected:
        raise UserError(
            f"`{detached_path}` has no detached expert ({', '.join(attachment.attached)} are attached): nothing to do"
        )
    return selected


def _same_model(checkpoint: Checkpoint, attachment: Attachment, original: Path) -> Checkpoint:
    """The original, after making sure that only its experts can differ."""
    detached_path, source = checkpoint.folder, detect(original)
    if source.kind != checkpoint.kind:
        raise UserError(
            f"`{original}` is a checkpoint of kind {source.kind} and `{detached_path}` of kind {checkpoint.kind}; give "
            "its own"
        )
    names = source.experts().expert_names
    if names != attachment.expert_names:
        raise UserError(
            f"`{original}` is not the model that `{detached_path}` came from: it has the experts {', '.join(names)}, "
            f"expected {', '.join(attachment.expert_names)}"
        )
    if (detached_path / CONFIG).is_file():
        ours, theirs = (_architecture(path) for path in (detached_path, source.folder))
        for key in ours:
            if ours[key] != theirs[key]:
                raise UserError(
                    f"`{original}` is not the model that `{detached_path}` came from: its `{key}` is another"
                )
    actual, expected = (fingerprint(_trained_and_clip(each.tensors())) for each in (source, checkpoint))
    if actual != expected:
        raise UserError(
            f"`{original}` is not the model that `{detached_path}` came from: its fusion or its CLIP has other "
            f"weights (sha256 {actual[:12]}..., expected {expected[:12]}...)"
        )
    return source


def _architecture(folder: Path) -> dict[str, Any]:
    vision = vision_block(load_json(folder / CONFIG), folder)
    keys = ("experts", "clip_config", "base", "select_layer", "image_mean", "image_std")
    return {key: vision.get(key) for key in keys}


def _trained_and_clip(tensors: Mapping[str, TensorAt]) -> dict[str, TensorAt]:
    """The tower without its experts, and without what stands in the place of one."""
    prefix, owners = tower_prefix(tensors), experts_by_tensor(tensors)
    if prefix is None:
        return {}
    owners |= mean_terms_by_tensor(tensors)
    return {name: at for name, at in tensors.items() if name.startswith(prefix) and name not in owners}


def _experts_of(original: Checkpoint, selected: Sequence[str]) -> dict[str, TensorAt]:
    tensors = original.tensors()
    owners = experts_by_tensor(tensors)
    absent = [name for name in selected if name not in owners.values()]
    if absent:
        raise UserError(
            f"`{original.folder}` does not hold the weights of `{absent[0]}` either; it is detached there too"
        )
    return {name: tensors[name] for name, owner in owners.items() if owner in selected}
