"""The ToVE vision tower as a transformers model.

    pixels -> CLIP or another base (frozen) -> t_clip -> tove_fusion -> t_fuse
        \\--> hub of experts (frozen) -> grids --^

Shapes: B images, N tokens, D width, K experts, H W pixels.

See docs/design.md, "Tower".
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import AutoModel

from ..experts import Expert, ExpertHub, build_expert
from ..experts.preprocess import Preprocessing, prepare
from ..registry import require
from . import attachment, checkpoint
from .checks import check_all_loaded, check_pixels, check_selected_layers
from .configuration import ToVEVisionConfig
from .init import drawn_in_float32, has_init, init_weights
from .make import make_base, make_fusion
from .output import FrozenFeatures, ToVEOutput
from .parts import is_light


class ToVEVisionModel(PreTrainedModel):
    """A frozen CLIP whose tokens take from frozen vision experts what a token-aware gate lets them.

    Args:
        config: Architecture.
        dtype: Of the weights, torch's default dtype when left out. Each part is cast as soon as it is built, so that
            float32 weights of one part at most are held; the values are those of a tower that is cast as a whole.
    """

    config: ToVEVisionConfig
    config_class = ToVEVisionConfig
    base_model_prefix = "tove"
    main_input_name = "pixel_values"
    input_modalities = ("image",)  # type: ignore[assignment]  # a tuple, as in transformers' own models
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    feature_cache: Any = None  # what stands in for CLIP and experts, see tove_lvlm.feature_cache
    _no_split_modules = ["CLIPEncoderLayer", "CLIPVisionEmbeddings", "ToVEFusion", "ConcatFusion"]

    def __init__(self, config: ToVEVisionConfig, dtype: torch.dtype | None = None):
        super().__init__(config)
        self.clip = make_base(config)
        cast(nn.Module, self.clip).to(dtype)  # transformers' own `to` loses `self` for type checkers
        entries = {entry["name"]: entry for entry in config.experts}
        self.experts = ExpertHub({name: build_expert(entries[name]).to(dtype) for name in config.attached_names})
        self.tove_fusion = make_fusion(config).to(dtype)
        # An expert stays whole on one device, those of other packages too: it may use its parameters out of turn.
        kinds = {type(expert).__name__ for expert in self._of_families()}
        self._no_split_modules = [*type(self)._no_split_modules, *sorted(kinds)]
        self._put_aside: dict[str, nn.Module] = {}
        self._attention: str | None = None
        self.sources: dict[str, Any] = {}
        """Where the frozen weights came from: `clip` and `experts.NAME` -> source, revision, file, sha256, licences."""
        self._awaits_weights = False
        self.post_init()
        # `from_pretrained` of this model or of a host puts the first values off until it has read the files.
        self._awaits_weights = not getattr(self, "_is_hf_initialized", False)
        self._restore_frozen()

    if TYPE_CHECKING:
        # What transformers leaves without annotations; its `to` wraps torch's, and `self` is lost on the way.
        def to(self, *args: Any, **kwargs: Any) -> "ToVEVisionModel": ...  # type: ignore[override]  # no wrapper
        def eval(self) -> "ToVEVisionModel": ...
        def post_init(self) -> None: ...

    # ---- what it computes ----

    def forward(
        self,
        pixel_values: torch.Tensor,
        output_hidden_states: bool | int | list[int] | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> ToVEOutput | tuple[Any, ...]:
        """Tokens for a batch of images.

        Args:
            pixel_values: (B, 3, S, S), S the config's `image_size`, normalised with its mean and std. An image
                that is exactly zero is a host's dummy and has no weight in the balance loss.
            output_hidden_states: `hidden_states` is always (t_clip, t_fuse). A host that gives the layer it is going
                to select, as LLaVA does, must select the last.
            return_dict: False gives a tuple.
            **kwargs: Whatever a host passes on; ignored.

        Returns:
            Tokens in the dtype of the tower's weights.

        Raises:
            ValueError: The pixels have another shape, or the host is going to select tokens without the experts.
        """
        check_selected_layers(output_hidden_states)
        frozen = self.encode_frozen(pixel_values)
        fused = self.tove_fusion(*frozen)
        output = ToVEOutput(
            last_hidden_state=fused.t_fuse_BND,
            hidden_states=(frozen.t_clip_BND, fused.t_fuse_BND),
            gate_probs=fused.gate_BNK,
            balance_loss=fused.balance if torch.is_grad_enabled() else None,
        )
        return output.to_tuple() if return_dict is False else output

    def encode_frozen(self, pixel_values: torch.Tensor) -> FrozenFeatures:
        """What `tove_fusion` is given, without gradient; for a host that keeps the fusion elsewhere.

        Args:
            pixel_values: As for `forward`.

        Raises:
            ValueError: The pixels have another shape.
        """
        check_pixels(pixel_values, self.config.image_size)
        self._pass_on_attention()
        if self.training:
            self._set_frozen_eval()  # train() of a part deep inside CLIP or an expert does not pass our own train()
        if self.feature_cache is None:
            t_clip_BND = self.clip_tokens(pixel_values)
            grids = self.experts(pixel_values, self.preprocessing, t_clip_BND.dtype, self.config.expert_resample)
        else:
            t_clip_BND, grids = self.feature_cache(self, pixel_values)
        return FrozenFeatures(t_clip_BND, grids, weight_B=(pixel_values != 0).flatten(1).any(1))

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(self.config.image_size, tuple(self.config.image_mean), tuple(self.config.image_std))

    def clip_pixels(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """The pixels as the base takes them: those given, or the same image at its size where `input_size` is larger.

        Resampled as CLIP's own processor does, bicubic: half the error of bilinear (benchmarks/pixel_path.py).

        Args:
            pixels_B3HW: As for `forward`.
        """
        target = self.preprocessing._replace(size=self.config.base_size)
        return prepare(pixels_B3HW, self.preprocessing, target)

    @torch.no_grad()
    def clip_tokens(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """The base's patch tokens of the layer that is read, (B, N, D); run whatever is cached."""
        dtype = next((parameter.dtype for parameter in self.clip.parameters()), pixels_B3HW.dtype)  # ONNX has none
        seen_B3HW = self.clip_pixels(pixels_B3HW).to(dtype)
        if isinstance(self.clip, Expert):
            grid_BDSS: torch.Tensor = self.clip(seen_B3HW)
            return grid_BDSS.flatten(2).transpose(1, 2).contiguous()  # as it comes out of a cache
        tokens_BND: torch.Tensor = self.clip(seen_B3HW, stop_at=self.config.select_layer)[:, 1:]
        if tokens_BND.shape[1] != self.config.num_tokens:
            raise ValueError(
                f"CLIP gave {tokens_BND.shape[1]} patch tokens; expected {self.config.side} x {self.config.side}, "
                "because experts are resampled to a square grid"
            )
        return tokens_BND

    def _pass_on_attention(self) -> None:
        """Experts follow the tower's `attn_implementation`, as CLIP does; a host may change it at any time."""
        implementation = self.config._attn_implementation
        if implementation != self._attention:
            for expert in self._of_families():
                expert.use_attention(implementation)
            self._attention = implementation

    def compile_experts(self, **options: Any) -> None:
        """Run the base's and each attached expert's forward through `torch.compile`, from the next call on.

        Args:
            **options: Of `torch.compile`.
        """
        self.clip.compile(**options)
        self.experts.compile_experts(**options)

    # ---- which experts take part ----

    @property
    def expert_names(self) -> list[str]:
        """All experts, attached or not, in the order of the gate's columns."""
        return self.config.expert_names

    @property
    def attached_names(self) -> list[str]:
        """The experts that are run, in order."""
        return self.config.attached_names

    def detach(self, *names: str, mean_terms: Mapping[str, torch.Tensor] | None = None) -> None:
        """Take experts out: they are neither run nor saved, and their gate probability is exactly 0.

        The others share what the gate gave them; or, with a mean term, that stays in an expert's place for every
        token and the others' shares stay what they were. With every expert detached the tower is its base, bit for bit.

        Args:
            *names: At least one; those already detached stay so.
            mean_terms: Expert -> (D,), the mean of g_k e_k (`surgery.mean_terms`); of some or all of them.

        Raises:
            ValueError: No such expert, no name, or a mean term that does not fit.
        """
        attachment.detach(self, names, mean_terms or {})

    def attach(self, *names: str) -> None:
        """Put detached experts back, bit for bit; a mean term in their place goes.

        Args:
            *names: All detached ones when left out. One that was detached when the tower was loaded has no weights
                here: they are read from where `sources` says.

        Raises:
            ValueError: No such expert, or its weights are unknown.
        """
        attachment.attach(self, names)
        self._attention = None

    # ---- what is frozen ----

    def requires_grad_(self, requires_grad: bool = True) -> "ToVEVisionModel":
        """As `nn.Module.requires_grad_`, for `tove_fusion` only: CLIP and experts hold no gradients."""
        self.tove_fusion.requires_grad_(requires_grad)
        return self

    def get_input_embeddings(self) -> nn.Module:
        """The base's patch embedding; of a base that is none of transformers' the base itself."""
        base = self.clip if self.config.base is None else getattr(self.clip, "backbone", None)
        return base.get_input_embeddings() if isinstance(base, PreTrainedModel) else self.clip

    def _init_weights(self, module: nn.Module) -> None:
        """First values of one module that was not loaded; transformers calls it for each."""
        if has_init(module):
            init_weights(module)
        else:
            super()._init_weights(module)  # type: ignore[no-untyped-call]  # transformers' has no annotations

    def _initialize_weights(self, module: nn.Module, *args: Any, **kwargs: Any) -> None:
        """transformers' walk over the modules after building or loading; the tower itself comes last."""
        with drawn_in_float32(module):
            super()._initialize_weights(module, *args, **kwargs)
        if module is self:
            self._check_all_loaded()
            self._restore_frozen()

    def _check_all_loaded(self) -> None:
        """A host's `from_pretrained` does not pass our own."""
        if self._awaits_weights:
            check_all_loaded(self)
            self._awaits_weights = False

    def _restore_frozen(self) -> None:
        """What loading undoes: transformers makes every loaded parameter trainable and leaves loose buffers empty."""
        self.clip.requires_grad_(False)
        self.experts.requires_grad_(False)
        self._set_frozen_eval()
        self._pass_on_attention()
        for expert in self._of_families():
            expert.repair_buffers()

    def _of_families(self) -> list[Expert]:
        """The attached experts, and a base that is one."""
        base = [self.clip] if isinstance(self.clip, Expert) else []
        return [*base, *self.experts.values()]

    def _set_frozen_eval(self) -> None:
        self.clip.train(False)
        self.experts.train(False)

    # ---- files ----

    def save_pretrained(  # type: ignore[override]  # transformers' further parameters are given by name
        self, save_directory: str | os.PathLike[str], light: bool = False, **kwargs: Any
    ) -> None:
        """Write the tower, its image processor and `sources.json`.

        Args:
            save_directory: Folder.
            light: Write only `tove_fusion`, with references to the frozen parts and their fingerprints.
            **kwargs: As `PreTrainedModel.save_pretrained`.

        Raises:
            ValueError: A light tower needs to know where every frozen part came from.
        """
        checkpoint.save(self, super().save_pretrained, save_directory, light, **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:  # type: ignore[override]  # the options by name
        """Upload the tower, whole, with its card and the code that loads it where this package is not installed.

        Args:
            repo_id: Hub id; the repository is made where there is none.
            **kwargs: `private`, `revision`, `create_pr`, `token`, `commit_message`, `commit_description`, as
                transformers takes them.

        Returns:
            Address of the commit.

        Raises:
            ImportError: The tower was loaded by remote code, and this package is not installed.
            UserError: No network, or no right to write there.
        """
        publish = require("tove_lvlm.tower.publish", extra="train")  # no file of an exported tower
        renamed = {key.removeprefix("commit_"): value for key, value in kwargs.items()}
        return cast(str, publish.push_tower(self, repo_id, **renamed))

    @classmethod
    def from_pretrained(  # type: ignore[override]  # never without a place, and the options as they come
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> Any:
        """Load a tower, whole or light.

        Args:
            pretrained_model_name_or_path: Folder or hub id.
            *args: As `PreTrainedModel.from_pretrained`.
            **kwargs: As `PreTrainedModel.from_pretrained`. For a light tower: `config`, `dtype`, and `sources`, a
                dictionary part -> source that says where frozen parts (`clip`, an expert's name) are on this machine.

        Raises:
            WeightsError: It is no tower; weights are missing, unexpected, truncated, or not those that the tower was
                trained with.
        """
        folder = pretrained_model_name_or_path
        checkpoint.check_kind(folder)
        if is_light(folder):
            return checkpoint.load_light(cls, folder, *args, **kwargs)
        return checkpoint.load_whole(super().from_pretrained, folder, *args, **kwargs)


AutoModel.register(ToVEVisionConfig, ToVEVisionModel, exist_ok=True)
