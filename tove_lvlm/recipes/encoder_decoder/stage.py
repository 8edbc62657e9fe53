"""The base model's runs as the engine sees them; their configuration is checked here, before torch is imported."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from ...config import ConfigError
from ...config.encoder_decoder import EncoderDecoderConfig, RunConfig, SourceConfig
from ...storage import load_json
from ...tower.from_yaml import read_tower_yaml
from ...train.stage import Resolve, TrainingSetup
from ..sources import data_files, vision_tower


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderStage:
    """A run of the base model (a `stage.Stage`). Pre-training and fine-tuning differ by their YAMLs alone."""

    name: str
    description: str
    schema: type = RunConfig

    def resolve_paths(self, config: RunConfig, resolve: Resolve) -> RunConfig:
        """See `stage.Stage`."""
        if self.name == "finetune_base" and config.model.pretrained is None:
            raise ConfigError(
                "`model.pretrained` is empty; fine-tuning starts from the output_dir of a finished "
                "scripts/pretrain_base.py"
            )
        mix = [_source(source, index, resolve) for index, source in enumerate(config.data.mix)]
        return dataclasses.replace(
            config,
            model=_model(config.model, resolve),
            data=dataclasses.replace(config.data, mix=mix),
        )

    def build(self, config: RunConfig) -> TrainingSetup:
        """See `stage.Stage`."""
        from .setup import build  # imports torch, which the configuration is checked without

        return build(config)


PRETRAIN = EncoderDecoderStage(
    name="pretrain_base",
    description="The base model learns to caption and to answer: tove_fusion and new cross-attention, by default.",
)
FINETUNE = EncoderDecoderStage(
    name="finetune_base",
    description="A pre-trained base model goes on with one task, as captions of COCO or questions of VQAv2.",
)


def _model(model: EncoderDecoderConfig, resolve: Resolve) -> EncoderDecoderConfig:
    model = dataclasses.replace(
        model,
        pretrained=_pretrained(model.pretrained, resolve),
        decoder=resolve("model.decoder", model.decoder, "folder", hub=True),
        vision_tower=vision_tower(model.vision_tower, resolve),
        tower=resolve("model.tower", model.tower, "file"),
    )
    return model if model.tower is None else dataclasses.replace(model, tower_config=read_tower_yaml(model.tower))


def _pretrained(source: str | None, resolve: Resolve) -> str | None:
    folder = resolve("model.pretrained", source, "folder")
    if folder is None:
        return None
    file = Path(folder) / "config.json"
    kind = load_json(file).get("model_type") if file.is_file() else None
    if kind != "vision-encoder-decoder":
        raise ConfigError(
            f"`model.pretrained`: folder `{source}` holds no base model (its config.json says `{kind}`); it must be "
            "the output_dir of a finished scripts/pretrain_base.py"
        )
    return folder


def _source(source: SourceConfig, index: int, resolve: Resolve) -> SourceConfig:
    key = f"data.mix[{index}]"
    return dataclasses.replace(
        source,
        files=data_files(f"{key}.files", source.files, resolve),
        image_folder=resolve(f"{key}.image_folder", source.image_folder, "folder"),
    )
