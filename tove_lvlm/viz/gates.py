"""What the gate did with one image, token by token: the numbers behind `tove gates`.

The gate's probability alone does not say what an expert adds, because its term may be large or small; so beside it
stands the term's length in relation to the token's, ||g_k e_k|| / ||t_clip||.

Shapes: B images, K experts, Y X rows and columns of the token grid (token n is row n // X, column n % X), C channels
and h w sides of an expert's grid, H W pixels.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from ..checkpoints import LoadedCheckpoint
from ..config import UserError
from ..data.errors import DataError
from ..data.images import read_image, to_pixels
from ..experts import Expert, ExpertHub
from ..tower.fusion import ToVEFusion
from ..tower.modeling import ToVEVisionModel

_DIGITS = 4
_NONE = -1
_PICTURE_CHANNELS = (1, 3)


@dataclass(frozen=True, kw_only=True)
class TokenGates:
    """One image's gate, what it added, and what there is to show of the experts."""

    names: list[str]
    """All experts, attached or not, in the order of axis K."""
    picture_HW3: np.ndarray
    """What the tower saw, uint8: the image after padding or cropping and resizing."""
    maps: dict[str, np.ndarray]
    """Attached expert -> (h, w, 3) uint8: its map, or its features' first three principal components."""
    features: list[str]
    """Those of `maps` that are principal components."""
    gate_KYX: np.ndarray
    """Gate probabilities, float32; 0 for detached experts."""
    strength_KYX: np.ndarray
    """||g_k e_k|| / ||t_clip||, float32; 0 for detached experts."""

    @property
    def detached(self) -> list[str]:
        """The experts that took no part."""
        return [name for name in self.names if name not in self.maps]

    @property
    def first_YX(self) -> np.ndarray:
        """Number of the expert with the largest probability; -1 where none took part."""
        return _largest(self.gate_KYX)

    @property
    def strongest_YX(self) -> np.ndarray:
        """Number of the expert whose term is longest; -1 where nothing is added."""
        return _largest(self.strength_KYX)

    def gate_mass(self) -> dict[str, float]:
        """Mean probability over the tokens; the attached experts' sum to 1."""
        return dict(zip(self.names, self.gate_KYX.mean((1, 2), dtype=np.float64).tolist(), strict=True))

    def strength(self) -> dict[str, float]:
        """Mean relative strength over the tokens."""
        return dict(zip(self.names, self.strength_KYX.mean((1, 2), dtype=np.float64).tolist(), strict=True))

    def first_share(self) -> dict[str, float]:
        """Share of the tokens where the expert has the largest probability."""
        first_YX = self.first_YX
        return {name: float((first_YX == index).mean()) for index, name in enumerate(self.names)}


def find_gated_tower(loaded: LoadedCheckpoint) -> ToVEVisionModel:
    """The tower of a checkpoint.

    Raises:
        UserError: There is no gate in it: a plain CLIP, a tower without experts, or one that concatenates.
    """
    problem = gate_problem(loaded.tower)
    if problem is not None:
        raise UserError(f"`{loaded.folder}`: {problem}; there is no gate to look at")
    return cast(ToVEVisionModel, loaded.tower)


def gate_problem(tower: ToVEVisionModel | None) -> str | None:
    """Why there is no gate to look at, in a few words; None where there is one.

    Args:
        tower: None of a model with a plain CLIP.
    """
    if tower is None:
        return "a plain CLIP is the vision tower"
    if getattr(tower.tove_fusion, "gate", None) is None:
        return "the tower concatenates its experts' channels" if tower.expert_names else "the tower has no experts"
    return None


def gates_of_images(
    loaded: LoadedCheckpoint, images: Sequence[str | Path], batch_size: int = 16
) -> Iterator[TokenGates]:
    """What the gate does with each image, in order.

    Args:
        loaded: A checkpoint with a tower.
        images: Files; turned as their EXIF orientation says, because they are shown to people.
        batch_size: Images per forward.

    Raises:
        UserError: The checkpoint has no gate.
        DataError: An image cannot be read.
    """
    tower = find_gated_tower(loaded)
    like = next(tower.parameters())
    for start in range(0, len(images), batch_size):
        pixels = [_pixels(loaded, path) for path in images[start : start + batch_size]]
        yield from read_gates(tower, torch.stack(pixels).to(like))


@torch.no_grad()  # no inference mode: a tower in training, of which something may be kept, is read too
def read_gates(tower: ToVEVisionModel, pixels_B3HW: torch.Tensor) -> list[TokenGates]:
    """Run the tower once and keep what each token got from whom.

    Args:
        tower: In eval mode.
        pixels_B3HW: As for the tower's forward.
    """
    side, names = tower.config.side, tower.expert_names
    with _outputs_of(tower.experts) as grids:
        output = tower(pixels_B3HW)
    gate_BNK = output.gate_probs.float()
    strength_BNK = cast(ToVEFusion, tower.tove_fusion).strengths(output.hidden_states[0], grids, gate_BNK)
    maps = {name: _picture(tower.experts[name], grid_BChw).cpu().numpy() for name, grid_BChw in grids.items()}
    features = [name for name, grid_BChw in grids.items() if grid_BChw.shape[1] not in _PICTURE_CHANNELS]
    pictures_BHW3 = _seen(tower, pixels_B3HW)
    gate_BKYX, strength_BKYX = (_to_grid(values_BNK, side) for values_BNK in (gate_BNK, strength_BNK))
    return [
        TokenGates(
            names=list(names),
            picture_HW3=pictures_BHW3[index],
            maps={name: pictures[index] for name, pictures in maps.items()},
            features=features,
            gate_KYX=gate_BKYX[index],
            strength_KYX=strength_BKYX[index],
        )
        for index in range(len(pixels_B3HW))
    ]


def as_json(images: Sequence[str | Path], gates: Sequence[TokenGates]) -> dict[str, Any]:
    """The same figures for a program: per image the means and, per expert, rows of the token grid.

    Args:
        images: Their files.
        gates: One for each image, of one tower.

    Returns:
        `experts`, `detached`, `side`, `mean` (over all images) and `images`; figures with four decimals.
    """
    names = gates[0].names
    rows = [
        {
            "image": str(image),
            **_means(image_gates),
            "tokens": {
                "gate": _rows(names, image_gates.gate_KYX),
                "strength": _rows(names, image_gates.strength_KYX),
                "first": [[None if k == _NONE else names[k] for k in row] for row in image_gates.first_YX.tolist()],
            },
        }
        for image, image_gates in zip(images, gates, strict=True)
    ]
    per_image = [_means(image_gates, digits=None) for image_gates in gates]
    mean = {
        figure: {name: round(sum(row[figure][name] for row in per_image) / len(per_image), _DIGITS) for name in names}
        for figure in per_image[0]
    }
    side = gates[0].gate_KYX.shape[-1]
    return {"experts": names, "detached": gates[0].detached, "side": side, "mean": mean, "images": rows}


def principal_components(grid_BChw: torch.Tensor) -> torch.Tensor:
    """A feature grid's first three principal components over its own image, (B, 3, h, w).

    A component's sign is free; it is set so that its largest loading is positive. Missing ones are zero.

    Args:
        grid_BChw: Any number of channels.
    """
    batch, channels, height, width = grid_BChw.shape
    tokens_BnC = grid_BChw.float().flatten(2).transpose(1, 2)
    tokens_BnC = tokens_BnC - tokens_BnC.mean(1, keepdim=True)
    axes_BCc = torch.linalg.svd(tokens_BnC, full_matrices=False).Vh[:, :3].transpose(1, 2)
    largest_B1c = axes_BCc.abs().argmax(1, keepdim=True)
    axes_BCc = axes_BCc * axes_BCc.gather(1, largest_B1c).sign()
    parts_BnC = tokens_BnC @ axes_BCc
    parts_BnC = nn.functional.pad(parts_BnC, (0, 3 - parts_BnC.shape[-1]))
    return parts_BnC.transpose(1, 2).reshape(batch, 3, height, width)


@contextlib.contextmanager
def _outputs_of(experts: ExpertHub) -> Iterator[dict[str, torch.Tensor]]:
    """Collects what each expert gives while the block runs."""
    outputs: dict[str, torch.Tensor] = {}

    def keep(name: str):
        return lambda module, args, output: outputs.__setitem__(name, output)

    handles = [expert.register_forward_hook(keep(name)) for name, expert in experts.items()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _pixels(loaded: LoadedCheckpoint, path: str | Path) -> torch.Tensor:
    picture = read_image(path, apply_exif=True)
    try:
        return to_pixels(picture, loaded.image_processor, loaded.image_aspect_ratio)
    except DataError as error:
        raise error.at(file=path) from error


def _picture(expert: Expert, grid_BChw: torch.Tensor) -> torch.Tensor:
    if grid_BChw.shape[1] not in _PICTURE_CHANNELS:
        grid_BChw = principal_components(grid_BChw)
    return expert.picture(grid_BChw)


def _seen(tower: ToVEVisionModel, pixels_B3HW: torch.Tensor) -> np.ndarray:
    mean, std = (torch.tensor(value)[:, None, None] for value in (tower.config.image_mean, tower.config.image_std))
    colors_B3HW = pixels_B3HW.float().cpu() * std + mean
    return (colors_B3HW.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def _to_grid(values_BNK: torch.Tensor, side: int) -> np.ndarray:
    return values_BNK.transpose(1, 2).unflatten(2, (side, side)).cpu().contiguous().numpy()


def _largest(values_KYX: np.ndarray) -> np.ndarray:
    return np.where(values_KYX.max(0) > 0, values_KYX.argmax(0), _NONE)


def _means(image_gates: TokenGates, digits: int | None = _DIGITS) -> dict[str, dict[str, float]]:
    figures = {
        "gate_mass": image_gates.gate_mass(),
        "first_share": image_gates.first_share(),
        "strength": image_gates.strength(),
    }
    if digits is None:
        return figures
    return {figure: {name: round(value, digits) for name, value in row.items()} for figure, row in figures.items()}


def _rows(names: list[str], values_KYX: np.ndarray) -> dict[str, list[list[float]]]:
    rounded = [np.round(values_YX.astype(np.float64), _DIGITS).tolist() for values_YX in values_KYX]
    return dict(zip(names, rounded, strict=True))
