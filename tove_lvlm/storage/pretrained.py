"""transformers' `from_pretrained`, strict: a weight that is not in the files would be random, and nobody would see it;
and its `save_pretrained`, for other readers than transformers too.

See docs/design.md, "Saved towers".
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import CLIPVisionModel, SiglipVisionModel

from ..errors import UserError
from .files import WeightsError, first_names
from .layout import INDEX, STANDARD_NAMES, shard_names
from .mirror import located
from .tensors import check_numbers

# What of the whole text of an error goes into a message of one line.
_REASON = 200


def load_pretrained(
    model_class: Any,
    source: str | Path | None,
    *,
    where: str = "",
    may_lack: Callable[[Any], Collection[str]] = lambda model: (),
    optional: Sequence[str] = (),
    leftovers: bool = True,
    **options: Any,
) -> Any:
    """A model of transformers with all of its weights.

    Args:
        model_class: A model class or an `Auto` class.
        source: Folder or hub id; None where `state_dict` is among the options.
        where: For messages, a key of a YAML or a folder; `source` by default.
        may_lack: Given the model, names of weights that may be new.
        optional: Parts of names, whose weights may lie there or not.
        leftovers: Whether tensors that the model does not have may lie there.
        **options: Of `from_pretrained`.

    Raises:
        WeightsError: Weights are missing, have another shape, hold NaN or infinity, or are left over where they may
            not be; an index names files outside of its folder.
    """
    where = where or f"`{source}`"
    source = located(source)
    if source is not None and Path(source).is_dir():
        for name in STANDARD_NAMES:
            if (Path(source) / f"{name}{INDEX}").is_file():
                shard_names(Path(source) / f"{name}{INDEX}")  # transformers would follow any path
    try:
        # Not an error of transformers' own, whose message is a table in the log.
        both = model_class.from_pretrained(source, output_loading_info=True, ignore_mismatched_sizes=True, **options)
    except Exception as error:
        raise unreadable(error, where, "weights") from error
    model, report = cast("tuple[nn.Module, dict[str, Any]]", both)  # which the option makes it
    new = may_lack(model)
    missing, unexpected = (
        [key for key in report[f"{kind}_keys"] if key not in new and not any(part in key for part in optional)]
        for kind in ("missing", "unexpected")
    )
    problems = [f"{len(missing)} missing, which would be random ({first_names(missing)})"] if missing else []
    if unexpected and not leftovers:
        problems.append(f"{len(unexpected)} unexpected ({first_names(unexpected)})")
    reshaped = [entry if isinstance(entry, str) else entry[0] for entry in report["mismatched_keys"]]
    if reshaped:
        problems.append(f"{len(reshaped)} of another shape ({first_names(reshaped)})")
    if problems:
        raise WeightsError(f"{where}: its weights do not fit {type(model).__name__}: {'; '.join(problems)}")
    named = dict(model.named_parameters())
    if "quantization_config" in options:  # as asked: what it quantised has integers
        named = {name: parameter for name, parameter in named.items() if parameter.is_floating_point()}
    check_numbers(named, where)
    return model


def save_stock(model: nn.Module, folder: str | Path, tensors: Mapping[str, torch.Tensor] | None = None) -> None:
    """As transformers' `save_pretrained`, under the names that every reader of a stock model knows.

    transformers 5.6 left `vision_model.` out of the names of CLIP's and SigLIP's encoders and reads both; transformers
    4, LLaVA's own code and vLLM read only those with it.

    Args:
        model: An encoder, or a LLaVA model with any vision tower.
        folder: Made when absent.
        tensors: By their names in `model`; none takes its own.
    """
    stock: Any = model
    inner = getattr(stock, "model", None)
    encoder, prefix = (stock, "") if inner is None else (getattr(inner, "vision_tower", None), "model.vision_tower.")
    named = stock.state_dict() if tensors is None else tensors
    if isinstance(encoder, CLIPVisionModel | SiglipVisionModel) and not hasattr(encoder, "vision_model"):
        named = {_with_wrapper(name, prefix): tensor for name, tensor in named.items()}
    stock.save_pretrained(folder, state_dict=named)


def _with_wrapper(name: str, prefix: str) -> str:
    return f"{prefix}vision_model.{name.removeprefix(prefix)}" if name.startswith(prefix) else name


def read_pretrained(reader: Any, source: str | Path, *, where: str = "", **options: Any) -> Any:
    """A config, a tokenizer or a processor of transformers or peft, or a model that is strict by itself.

    Args:
        reader: A class with `from_pretrained`, such as `AutoConfig`.
        source: Folder or hub id.
        where: For messages, as for `load_pretrained`.
        **options: Of `from_pretrained`.

    Raises:
        WeightsError: It is not there, or broken.
    """
    try:
        return reader.from_pretrained(located(source), **options)
    except UserError:
        raise
    except Exception as error:
        what = reader.__name__.removeprefix("Auto")
        raise unreadable(error, where or f"`{source}`", what) from error


def unreadable(error: Exception, where: str, what: str) -> Exception:
    """One line for what a library raises of broken files: a dozen kinds, `Exception` itself, with texts of many lines.

    Args:
        error: Out of memory stays as it is.
        where: For the message, what was read.
        what: The part of it.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return error
    if isinstance(error, UserError):
        return WeightsError(f"{where}: {error}")
    text = " ".join(str(error).split())
    reason = text if len(text) <= _REASON else text[: _REASON - 3] + "..."
    return WeightsError(f"{where}: its {what} cannot be read: {type(error).__name__}: {reason}")
