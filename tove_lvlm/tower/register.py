"""The tower's entries in transformers' auto classes; `tove_lvlm._hook` calls each once its auto class is imported.

One function for each auto class, because they must not import each other: `AutoConfig` is complete before
`PreTrainedModel` can be imported.
"""


def register_config() -> None:
    """`AutoConfig` knows `model_type: tove_vision`. Idempotent."""
    from transformers.models.auto.configuration_auto import AutoConfig

    from .configuration import ToVEVisionConfig

    AutoConfig.register(ToVEVisionConfig.model_type, ToVEVisionConfig, exist_ok=True)


def register_model() -> None:
    """`AutoModel` builds `ToVEVisionModel`. Idempotent."""
    from transformers.models.auto.modeling_auto import AutoModel

    from .configuration import ToVEVisionConfig
    from .modeling import ToVEVisionModel

    AutoModel.register(ToVEVisionConfig, ToVEVisionModel, exist_ok=True)


def register_image_processor() -> None:
    """`AutoImageProcessor` loads `ToVEImageProcessor`. Idempotent."""
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    from .configuration import ToVEVisionConfig
    from .image_processing import ToVEImageProcessor

    AutoImageProcessor.register(ToVEVisionConfig, image_processor_classes={"pil": ToVEImageProcessor}, exist_ok=True)


def register() -> None:
    """All three. Idempotent."""
    register_config()
    register_model()
    register_image_processor()
