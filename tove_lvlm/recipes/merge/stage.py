"""Merging as the engine sees it: scripts/merge_experts.py and `tove merge` hand it over."""

import dataclasses
from dataclasses import dataclass

from ...config.merge import MergeRunConfig
from ...train.stage import Resolve, TrainingSetup


@dataclass(frozen=True, kw_only=True)
class MergeStage:
    """A student CLIP learns what a trained tower gives (a `stage.Stage`)."""

    name: str = "merge"
    description: str = "Merge a trained tower's experts into one plain CLIP, from images alone."
    schema: type = MergeRunConfig

    def resolve_paths(self, config: MergeRunConfig, resolve: Resolve) -> MergeRunConfig:
        """See `stage.Stage`."""
        model, data = config.model, config.data
        return dataclasses.replace(
            config,
            model=dataclasses.replace(
                model,
                checkpoint=resolve("model.checkpoint", model.checkpoint, "folder"),
                student=resolve("model.student", model.student, "folder", hub=True),
            ),
            data=dataclasses.replace(
                data,
                images=[
                    resolve(f"data.images[{i}]", source, "file" if source.endswith((".json", ".jsonl")) else "folder")
                    for i, source in enumerate(data.images)
                ],
                image_folder=resolve("data.image_folder", data.image_folder, "folder"),
            ),
        )

    def build(self, config: MergeRunConfig) -> TrainingSetup:
        """See `stage.Stage`."""
        from .setup import build  # imports torch, which the configuration is checked without

        return build(config)


MERGE = MergeStage()
