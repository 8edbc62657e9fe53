"""`tove cache build`: fill the cache of a training YAML with the features of all its images, ahead of training.

Only the tower is built of LLaVA's stages, not the language model. On several ranks each takes its share of the images
and writes its own shards.

See docs/design.md, "Expert cache".
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Subset

from .. import dist
from ..checkpoints import open_checkpoint
from ..checkpoints.from_config import build_lvlm
from ..config import UserError, read_yaml
from ..data.dataset import ToVEDataset
from ..data.errors import DataError
from ..data.record_dataset import RecordDataset
from ..lvlm.build import load_vision, without_zero3_init
from ..lvlm.image_processor import as_trained
from ..lvlm.parts import as_llava
from ..train.stage import Stage, load_run
from . import encoder_decoder, llava, merge
from .expert_cache import use_expert_cache
from .expert_speed import use_expert_speed


@dataclass(frozen=True)
class Filled:
    """What one rank did."""

    images: int
    """Different entries of the data; a file that many samples name counts once."""
    broken: list[str]
    """Messages of images that could not be read."""
    read: int
    """Features (of an image and a backbone) that were there already."""
    computed: int
    stopped: str | None
    """Why nothing more could be added."""


class Pictures(Dataset[torch.Tensor | str]):
    """Pixels of each different image of a run's data, (3, H, W); of a broken one the message.

    Args:
        datasets: The run's.
    """

    def __init__(self, datasets: Sequence[Any]):
        self.datasets = list(datasets)
        self.places: list[tuple[int, tuple[int, ...]]] = []
        """Which data set, and what its `pixels` takes."""
        for number, dataset in enumerate(self.datasets):
            seen = set()
            for index in range(len(dataset)):
                if not isinstance(dataset, RecordDataset):
                    self.places.append((number, (index,)))
                    continue
                for which, image in enumerate(dataset.images_of(index)):
                    if image not in seen:
                        seen.add(image)
                        self.places.append((number, (index, which)))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> torch.Tensor | str:
        number, place = self.places[index]
        try:
            return self.datasets[number].pixels(*place)
        except DataError as error:
            return str(error)


def fill(
    cfg_path: str | Path,
    options: Sequence[str] = (),
    *,
    device: str = "cpu",
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Filled:
    """See the module's docstring.

    Args:
        cfg_path: YAML of LLaVA's stages, of the base model or of merging, with `train.expert_cache`.
        options: `a.b=c` strings.
        device: Where the backbones run.
        batch_size: Images at once; none takes the run's. The last bits of a float depend on it.
        progress: Told how many of this rank's images are done, of how many.

    Raises:
        UserError: The YAML does not fit, names no cache, or its tower has nothing to keep.
    """
    stage, config = read_run(cfg_path, options)
    if config.train.expert_cache is None:
        raise UserError(f"{cfg_path}: `train.expert_cache` is empty; name the folder to fill")
    dtype = torch.bfloat16 if config.train.bf16 else torch.float32
    tower, datasets = _PARTS[stage.name](config, dtype)
    with_clip = stage.name != "merge" or config.merge.token_weight == "none"
    tower.to(torch.device(device), dtype)
    cache = use_expert_cache(tower, config.train, with_clip=with_clip)
    use_expert_speed(tower, config.train, torch.device(device))
    if cache is None:
        raise UserError(f"{cfg_path}: the vision tower is a plain CLIP, of which nothing is kept")
    pictures = Pictures(datasets)
    mine = Subset(pictures, range(dist.rank(), len(pictures), dist.world_size()))
    batch = batch_size or config.train.per_device_train_batch_size
    loader: DataLoader[Any] = DataLoader(
        mine, batch, num_workers=config.train.dataloader_num_workers, collate_fn=lambda samples: samples
    )
    broken: list[str] = []
    done = 0
    with _arithmetic_of(config, stage, torch.device(device)) as pixel_dtype:
        for samples in loader:
            pixels = [sample for sample in samples if isinstance(sample, torch.Tensor)]
            broken += [sample for sample in samples if isinstance(sample, str)]
            if pixels:
                tower.feature_cache(tower, torch.stack(pixels).to(device, pixel_dtype))
            done += len(samples)
            if progress is not None:
                progress(done, len(mine))
            if cache.folder.stopped is not None:
                break
    cache.close()
    return Filled(done, broken, cache.num_read, cache.num_computed, cache.folder.stopped)


def read_run(cfg_path: str | Path, options: Sequence[str] = ()) -> tuple[Stage, Any]:
    """The stage that a training YAML is for, by its `model` block, and the resolved configuration.

    Args:
        cfg_path: The YAML.
        options: `a.b=c` strings.

    Raises:
        ConfigError: It fits none.
    """
    tree = read_yaml(cfg_path, list(options))
    block = tree.get("model")
    keys = set(block) if isinstance(block, dict) else set()
    if "checkpoint" in keys:
        stage: Stage = merge.MERGE
    elif {"decoder", "pretrained"} & keys:
        stage = encoder_decoder.FINETUNE if "pretrained" in keys else encoder_decoder.PRETRAIN
    else:
        is_second = "lora" in tree or "pretrain_mm_mlp_adapter" in keys
        stage = llava.FINETUNE if is_second else llava.PRETRAIN
    return stage, load_run(stage, cfg_path, options)


@contextlib.contextmanager
def _arithmetic_of(config: Any, stage: Stage, device: torch.device) -> Iterator[torch.dtype]:
    """What the run computes in, since an entry is of that alone; gives the dtype of its pixels.

    DeepSpeed's runs get pixels in their own dtype and have no autocast; without it, bf16 is autocast.
    """
    dtype = torch.bfloat16 if config.train.bf16 else torch.float32
    autocast = config.train.bf16 and config.train.deepspeed is None
    cast_by_model = stage.name in ("pretrain_base", "finetune_base")
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        yield dtype if config.train.deepspeed is not None or cast_by_model else torch.float32


def _of_llava(config: Any, dtype: torch.dtype) -> tuple[Any, list[Any]]:
    if config.model.is_whole:
        model, processor = build_lvlm(config.model, dtype)
        tower, image_processor = as_llava(model).model.vision_tower, processor.image_processor
    else:
        vision = load_vision(config.model, dtype)
        tower, image_processor = vision.tower, vision.image_processor
    data = config.data
    dataset = ToVEDataset(
        data.train,
        tokenizer=None,
        num_image_tokens=1,
        model_max_length=config.train.model_max_length,
        image_processor=as_trained(image_processor, data.image_aspect_ratio, data.transparency),
        image_folder=data.image_folder,
        image_aspect_ratio=data.image_aspect_ratio,
        on_error="skip",
        max_error_share=1.0,
        allow_symlinks=data.allow_symlinks,
        reduce_large_images=data.reduce_large_images,
        direct_resize=data.direct_resize,
    )
    return tower, [dataset]


def _of_base(config: Any, dtype: torch.dtype) -> tuple[Any, list[Any]]:
    from .encoder_decoder.setup import build_data, build_model

    model, processor = build_model(config.model, dtype)
    processor.image_processor = as_trained(
        processor.image_processor, config.data.image_aspect_ratio, config.data.transparency
    )
    return model.encoder, build_data(config, processor).sources


def _of_merge(config: Any, dtype: torch.dtype) -> tuple[Any, list[Any]]:
    from .merge.images import ImageDataset

    with without_zero3_init():
        loaded = open_checkpoint(config.model.checkpoint)
    data = config.data
    dataset = ImageDataset(
        data.images,
        loaded.image_processor,
        data.image_aspect_ratio or loaded.image_aspect_ratio,
        image_folder=data.image_folder,
        allow_symlinks=data.allow_symlinks,
        direct_resize=data.direct_resize,
    )
    return loaded.require_tower(), [dataset]


_PARTS: dict[str, Callable[[Any, torch.dtype], tuple[Any, list[Any]]]] = {
    "pretrain": _of_llava,
    "finetune": _of_llava,
    "pretrain_base": _of_base,
    "finetune_base": _of_base,
    "merge": _of_merge,
}
"""Stage -> its tower and its data sets."""
