"""A LAVIS dataset for captions in LLaVA's JSON: `datasets: {llava_caption: ...}`.

datasets:
  llava_caption:
    vis_processor:  {train: {name: tove_image_train}, eval: {name: tove_image_eval}}
    text_processor: {train: {name: blip_caption}, eval: {name: blip_caption}}
    build_info:
      annotations: {train: {storage: data/train/pretrain.json}, val: {storage: data/heldout/captions.jsonl}}
      images:      {train: data/train/images, val: data/heldout/images}

An annotation file is LLaVA's JSON list, whose last `gpt` turn is the caption, or JSON lines with `image` and `caption`.
Paths are relative to the working directory, not to LAVIS's cache.
"""

import json
from pathlib import Path
from typing import Any, cast

from ...config import UserError

DEFAULTS = Path(__file__).with_name("llava_caption.yaml")


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """The records of an annotation file.

    Args:
        path: A JSON list, or JSON lines in a `.jsonl`.

    Raises:
        UserError: The file is absent or unreadable.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.splitlines() if line] if path.suffix == ".jsonl" else json.loads(text)
    except FileNotFoundError as error:
        raise UserError(f"annotation file `{path}` does not exist (looked at {path.absolute()})") from error
    except ValueError as error:
        raise UserError(f"annotation file `{path}` is not readable as JSON: {error}") from error
    return cast("list[dict[str, Any]]", rows)


def read_captions(path: str | Path) -> list[dict[str, Any]]:
    """Image names with their captions.

    Args:
        path: LLaVA's JSON list or JSON lines.

    Returns:
        `image`, `caption` and a running `image_id` for each record.

    Raises:
        UserError: The file is absent or unreadable, or a record has no image or no caption.
    """
    samples = []
    for index, row in enumerate(read_rows(path)):
        caption = row.get("caption") or next(
            (turn["value"] for turn in reversed(row.get("conversations", [])) if turn.get("from") == "gpt"), None
        )
        if not row.get("image") or not caption:
            raise UserError(f"{path}: record {index} has no `image` with a caption (a `gpt` turn, or `caption`)")
        samples.append({"image": row["image"], "caption": caption, "image_id": index})
    return samples


def make_builder(name: str, train_cls: type, eval_cls: type, defaults: Path) -> type:
    """A builder of LAVIS's whose `build_info` has paths of the working directory, and which downloads nothing.

    Args:
        name: Of the data set.
        train_cls: A data set class of LAVIS's, for the split `train`.
        eval_cls: One for all other splits.
        defaults: The data set's YAML.
    """
    from lavis.datasets.builders.base_dataset_builder import BaseDatasetBuilder

    class Builder(BaseDatasetBuilder):
        """Build a dataset for each split that `build_info.annotations` names."""

        train_dataset_cls, eval_dataset_cls = train_cls, eval_cls
        DATASET_CONFIG_DICT = {"default": str(defaults)}

        def _download_data(self):
            """Nothing is downloaded."""

        def build(self):
            self.build_processors()
            return {split: self._build_split(split) for split in self.config.build_info.annotations}

        def _build_split(self, split: str):
            files = self.config.build_info.annotations[split].storage
            folder = Path(self.config.build_info.images.get(split) or ".").absolute()
            if not folder.is_dir():
                raise UserError(f"`{name}.build_info.images.{split}`: no folder `{folder}`")
            part, cls = ("train", train_cls) if split == "train" else ("eval", eval_cls)
            paths = [files] if isinstance(files, str) else list(files)
            return cls(self.vis_processors[part], self.text_processors[part], str(folder), paths)

    return Builder


def register() -> None:
    """File the builder in LAVIS's registry. Idempotent."""
    from lavis.common.registry import registry

    if registry.get_builder_class("llava_caption") is not None:
        return
    from lavis.datasets.datasets.caption_datasets import CaptionDataset, CaptionEvalDataset

    class LlavaCaptions(CaptionDataset):
        """Images with captions, for training."""

        def __init__(self, vis_processor, text_processor, vis_root, ann_paths):
            super().__init__(vis_processor, text_processor, vis_root, [])
            _fill(self, ann_paths)
            self.img_ids = {row["image_id"]: index for index, row in enumerate(self.annotation)}

    class LlavaCaptionsEval(CaptionEvalDataset):
        """The images alone, for generation."""

        def __init__(self, vis_processor, text_processor, vis_root, ann_paths):
            super().__init__(vis_processor, text_processor, vis_root, [])
            _fill(self, ann_paths)

    builder = make_builder("llava_caption", LlavaCaptions, LlavaCaptionsEval, DEFAULTS)
    registry.register_builder("llava_caption")(builder)


def _fill(dataset: Any, ann_paths: list[str]) -> None:
    rows = [row for path in ann_paths for row in read_captions(path)]
    dataset.annotation = [{**row, "image_id": index} for index, row in enumerate(rows)]
    dataset._add_instance_ids()
