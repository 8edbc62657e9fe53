"""LLaVA's two stages as the engine sees them; their configuration is checked here, before torch is imported."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from ...config import ConfigError
from ...config.llava import RunConfig
from ...config.model import PLAIN_TEMPLATE, PROJECTOR_FILE, V1_TEMPLATE
from ...config.trained import left_out_of_start
from ...tower.from_yaml import read_tower_yaml
from ...train.stage import Resolve, TrainingSetup
from ..sources import data_files, vision_tower


@dataclass(frozen=True, kw_only=True)
class LlavaStage:
    """Stage 1 or stage 2 of ToVE_Vicuna (a `stage.Stage`)."""

    name: str
    description: str
    schema: type = RunConfig

    def resolve_paths(self, config: RunConfig, resolve: Resolve) -> RunConfig:
        """See `stage.Stage`."""
        model, data, train = config.model, config.data, config.train
        if self.name == "pretrain" and config.lora.lora_enable:
            raise ConfigError(
                "`lora.lora_enable` is true, but stage 1 keeps the language model frozen; it is for stage 2"
            )
        if self.name == "pretrain" and train.save_merged:
            raise ConfigError("`train.save_merged` is true, but stage 1 has nothing to merge; it is for stage 2")
        if self.name == "finetune" and data.caption_template != PLAIN_TEMPLATE:
            raise ConfigError(
                f"`data.caption_template` is `{data.caption_template}`, but stage 2 always learns conversations by "
                "`model.chat_template`; it is for stage 1"
            )
        if train.bits != 16 and self.name == "finetune" and not config.lora.lora_enable:
            raise ConfigError(
                f"`train.bits` is {train.bits}, but without LoRA the whole language model is trained, which quantised "
                "weights cannot be; set `lora.lora_enable: true`"
            )
        if train.freeze_mm_mlp_adapter and self.name == "finetune":
            raise ConfigError(
                "`train.freeze_mm_mlp_adapter` is true, but stage 2 trains the projector; it is for stage 1"
            )
        if train.freeze_mm_mlp_adapter and not model.is_whole and model.pretrain_mm_mlp_adapter is None:
            raise ConfigError(
                "`train.freeze_mm_mlp_adapter` is true, but the projector is a new one; name a whole LLaVA folder in "
                "`model.llm` and `model.vision_tower`, or `model.pretrain_mm_mlp_adapter`"
            )
        config = dataclasses.replace(
            config,
            model=dataclasses.replace(
                model,
                llm=resolve("model.llm", model.llm, "folder", hub=True),
                chat_template=_template(model.chat_template, resolve),
                vision_tower=vision_tower(model.vision_tower, resolve),
                tower=resolve("model.tower", model.tower, "file"),
                clip=resolve("model.clip", model.clip, "folder", hub=True),
                pretrain_mm_mlp_adapter=_adapter(model.pretrain_mm_mlp_adapter, resolve),
            ),
            data=dataclasses.replace(
                data,
                train=data_files("data.train", data.train, resolve),
                image_folder=resolve("data.image_folder", data.image_folder, "folder"),
            ),
        )
        if config.model.tower is None:
            return config
        tower = read_tower_yaml(config.model.tower, left_out=left_out_of_start(config.model))
        return dataclasses.replace(config, model=dataclasses.replace(config.model, tower_config=tower))

    def build(self, config: RunConfig) -> TrainingSetup:
        """See `stage.Stage`."""
        from .setup import build

        return build(self.name, config)


PRETRAIN = LlavaStage(
    name="pretrain",
    description="Stage 1: the projector and tove_fusion learn from captions; everything else is frozen.",
)
FINETUNE = LlavaStage(
    name="finetune",
    description="Stage 2: LoRA on the language model, projector and tove_fusion go on; conversations.",
)


def _template(source: str | None, resolve: Resolve) -> str | None:
    return source if source == V1_TEMPLATE else resolve("model.chat_template", source, "file")


def _adapter(source: str | None, resolve: Resolve) -> str | None:
    folder = resolve("model.pretrain_mm_mlp_adapter", source, "folder")
    if folder is not None and not (Path(folder) / PROJECTOR_FILE).is_file():
        raise ConfigError(
            f"`model.pretrain_mm_mlp_adapter`: folder `{source}` has no {PROJECTOR_FILE}; it must be the output_dir of "
            "a finished scripts/pretrain_projector.py"
        )
    return folder
