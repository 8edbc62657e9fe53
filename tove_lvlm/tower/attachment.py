"""Which experts take part: taken out of a tower in memory, and put back.

Shapes: D width.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from ..registry import nearest
from . import checkpoint
from .fusion import ToVEFusion

if TYPE_CHECKING:
    from .modeling import ToVEVisionModel


def detach(tower: "ToVEVisionModel", names: Sequence[str], mean_terms: Mapping[str, torch.Tensor]) -> None:
    """Take experts out.

    Args:
        tower: Changed.
        names: At least one; those already detached stay so.
        mean_terms: Of some of them, (D,) each: what stays in their place.

    Raises:
        ValueError: No such expert, no name, or a mean term of another expert or width.
    """
    if not names:
        raise ValueError(f"name the experts to detach; {nearest('', tower.expert_names)}")
    _check_names(tower, [*names, *mean_terms])
    if mean_terms:
        _fusion_with_means(tower, names, mean_terms)
    for name in names:
        if name in tower.experts:
            tower._put_aside[name] = tower.experts.pop(name)
    gone = {*tower.config.detached, *names}
    tower.config.detached = [name for name in tower.expert_names if name in gone]
    if mean_terms:
        keep_mean_terms(tower, mean_terms)


def attach(tower: "ToVEVisionModel", names: Sequence[str]) -> None:
    """Put detached experts back, bit for bit; what stood in their place goes.

    Args:
        tower: Changed.
        names: All detached ones when left out.

    Raises:
        ValueError: No such expert, or its weights are unknown.
    """
    _check_names(tower, names)
    selected = [name for name in tower.config.detached if name in names or not names]
    loaded = {
        name: tower._put_aside[name] if name in tower._put_aside else checkpoint.load_expert(tower, name)
        for name in selected
    }
    like = next(tower.clip.parameters())
    attached = {**dict(tower.experts.items()), **{name: expert.to(like) for name, expert in loaded.items()}}
    tower._put_aside = {name: expert for name, expert in tower._put_aside.items() if name not in loaded}
    tower.config.detached = [name for name in tower.config.detached if name not in selected]
    if isinstance(fusion := tower.tove_fusion, ToVEFusion):
        for name in {*selected} & fusion.mean_terms.keys():
            fusion.mean_terms.pop(name)
    tower.config.mean_terms = [name for name in tower.config.mean_terms if name not in selected]
    tower.experts.clear()
    tower.experts.update({name: attached[name] for name in tower.attached_names})


def keep_mean_terms(tower: "ToVEVisionModel", mean_terms: Mapping[str, torch.Tensor]) -> None:
    """Let the mean terms of detached experts stand in their place.

    Args:
        tower: Changed.
        mean_terms: Detached expert -> (D,).

    Raises:
        ValueError: The tower has no gate, the expert is attached, or the width is another.
    """
    fusion = _fusion_with_means(tower, tower.config.detached, mean_terms)
    like = next(fusion.parameters())
    for name, mean_D in mean_terms.items():
        parameter = torch.nn.Parameter(mean_D.detach().to(like), requires_grad=like.requires_grad)
        fusion.mean_terms[name] = parameter
    kept = {*tower.config.mean_terms, *mean_terms}
    tower.config.mean_terms = [name for name in tower.expert_names if name in kept]


def _fusion_with_means(
    tower: "ToVEVisionModel", names: Sequence[str], mean_terms: Mapping[str, torch.Tensor]
) -> ToVEFusion:
    fusion, width = tower.tove_fusion, tower.config.base_width
    if not isinstance(fusion, ToVEFusion):
        raise ValueError("only a gated tower (`fusion.kind: gated`) has terms; this one concatenates its experts")
    for name, mean_D in mean_terms.items():
        if name not in names:
            raise ValueError(f"a mean term stands in the place of a detached expert, and `{name}` is attached")
        if tuple(mean_D.shape) != (width,):
            raise ValueError(f"the mean term of `{name}` has shape {tuple(mean_D.shape)}; expected ({width},)")
    return fusion


def _check_names(tower: "ToVEVisionModel", names: Sequence[str]) -> None:
    for name in names:
        if name not in tower.expert_names:
            raise ValueError(f"the tower has no expert `{name}`; {nearest(str(name), tower.expert_names)}")
