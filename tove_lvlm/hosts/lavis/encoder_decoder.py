"""The base model as LAVIS's architectures `tove_caption` and `tove_vqa`, for its captioning and VQA tasks.

Nothing of the model is written again: it is built, trained and asked by the code of this package's own runs
(`lvlm.encoder_decoder`, `recipes.encoder_decoder.objective`, `inference`). Both names are one class. It learns captions
and answers alike, whichever a batch has, so that a LAVIS run may mix data sets of both.

Shapes: B images, R texts, 3 H W pixels.

See docs/hosts.md, "LAVIS".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import VisionEncoderDecoderModel

from ...config import UserError
from ...data.conversations import IGNORE_INDEX
from ...data.errors import DataError
from ...data.row_layout import model_inputs
from ...data.text_dataset import TextCollator, TextSample
from ...inference.batching import DecodingConfig
from ...inference.encoder_decoder import EncoderDecoderResponder
from ...inference.ranking import RankingConfig
from ...lvlm.prompt_processor import PromptProcessor
from ...lvlm.trainable import set_trainable
from ...recipes.encoder_decoder.objective import TextLoss, TextObjective
from ...recipes.encoder_decoder.setup import build_model
from ...tower.modeling import ToVEVisionModel
from .balance import add_balance_loss
from .checks import check_base_keys, naming_file
from .model_block import ARCHITECTURES, MODEL_TYPES, ModelBlock, model_config, read_block
from .tower import train_fusion

_TOWER = "model.encoder."
_METHODS = ("rank", "generate")


@dataclass(frozen=True, kw_only=True)
class LavisDecoding(DecodingConfig):
    """With what LAVIS's models take besides."""

    repetition_penalty: float = 1.0

    def arguments(self) -> dict[str, float]:
        """See `DecodingConfig`."""
        return super().arguments() | {"repetition_penalty": self.repetition_penalty}


class ToVEEncoderDecoder(nn.Module):
    """What LAVIS's tasks and runner call; `register` makes it a `BaseModel` of LAVIS's.

    Args:
        model: The base model; what learns is set by `block.trainable`.
        processor: The model's.
        block: LAVIS's `model` block.
    """

    PRETRAINED_MODEL_CONFIG_DICT = MODEL_TYPES

    def __init__(self, model: VisionEncoderDecoderModel, processor: PromptProcessor, block: ModelBlock):
        super().__init__()
        self.model, self.processor, self.block = model, processor, block
        self._responder = EncoderDecoderResponder(model, processor)
        set_trainable(model, block.trainable)
        if block.trainable != "language_model":
            train_fusion(cast(ToVEVisionModel, model.encoder))

    @classmethod
    def from_config(cls, cfg: Any) -> "ToVEEncoderDecoder":
        """The model of a LAVIS YAML's `model` block, checkpoint included.

        Args:
            cfg: As in `model_block.ModelBlock`.

        Raises:
            ConfigError: A key or a value does not fit.
            WeightsError: The checkpoint does not fit the model.
        """
        block = read_block(cfg)
        made = cls(*build_model(model_config(block)), block)
        if block.checkpoint is not None:
            cast(Any, made).load_checkpoint(block.checkpoint)
        return made

    # ---- training ----

    def forward(self, samples: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The loss of a batch, by this package's own objective.

        Args:
            samples: `image` (B, 3, H, W) and `text_input`, B texts. Where there is `answer`, as in LAVIS's VQA data
                sets, the texts are questions: `answer` has R answers in their order, `n_answers` (B,) how many each
                question has (one, where it is left out), `weight` (R,) what an answer's loss counts.

        Returns:
            Scalars: `loss_lm`, the texts' cross-entropy; in training `loss_balance`, the tower's balance loss without
            its weight; `loss`, their sum with `balance_loss_weight`.

        Raises:
            DataError: A text is longer than the decoder's context, or answers and questions do not belong together.
        """
        encoded = [self.processor.encode_rounds(pairs) for pairs in self._pairs(samples)]
        images = samples["image"]
        collate = TextCollator(pad_token_id=cast(int, self.model.generation_config.pad_token_id))
        batch = collate(
            [
                TextSample(rows=rows, pixel_values=pixels, sample_id="")
                for rows, pixels in zip(encoded, images, strict=True)
            ]
        )
        batch = {name: tensor.to(images.device) for name, tensor in model_inputs(batch).items()}
        weight_R = samples.get("weight", torch.ones(len(batch["labels"]))).to(images)
        objective = TextObjective(self.model, self.block.label_smoothing)
        output: TextLoss = objective(**batch, text_weight=weight_R)
        labels_R = (batch["labels"] != IGNORE_INDEX).sum(1) if self.block.loss_reduction == "mean_per_token" else 1
        loss = output.loss_sum / (weight_R * labels_R).sum()
        losses = {"loss": loss, "loss_lm": loss.detach()}
        if self.training:
            add_balance_loss(losses, output.tower.balance_loss, self.block.balance_loss_weight)
        return losses

    def _pairs(self, samples: dict[str, Any]) -> list[list[tuple[str, str]]]:
        """For each image what is asked and answered about it; of a caption what is asked is the block's `prompt`."""
        texts = list(samples["text_input"])
        if "answer" not in samples:
            return [[(self.block.prompt, caption)] for caption in texts]
        answers = iter(samples["answer"])
        counts = [int(count) for count in samples.get("n_answers", [1] * len(texts))]
        if len(counts) != len(texts) or sum(counts) != len(samples["answer"]):
            raise DataError(f"{len(texts)} questions with {counts} answers, and {len(samples['answer'])} answers given")
        return [
            [(question, next(answers)) for _ in range(count)] for question, count in zip(texts, counts, strict=True)
        ]

    # ---- asking ----

    def generate(
        self,
        samples: dict[str, Any],
        use_nucleus_sampling: bool = False,
        num_beams: int = 5,
        max_length: int = 30,
        min_length: int = 1,
        top_p: float = 0.9,
        repetition_penalty: float = 1.0,
        length_penalty: float = 1.0,
        num_captions: int = 1,
        temperature: float = 1.0,
    ) -> list[str]:
        """Captions, in evaluation mode.

        Args:
            samples: `image` (B, 3, H, W); `prompt`, a text or B texts, in place of the block's.
            use_nucleus_sampling: Draw; else beam search.
            num_beams: Of the beam search; 1 is greedy.
            max_length: Tokens of a caption at most, its end included and the prompt not.
            min_length: Tokens at least.
            top_p: Share of probability to draw from.
            repetition_penalty: 1 for none.
            length_penalty: Of the beam search.
            num_captions: Drawn for each image.
            temperature: Of what is drawn.

        Returns:
            `num_captions` for each image, image after image.

        Raises:
            UserError: A number is out of range, or several captions are to come of one beam search.
        """
        if num_captions > 1 and not use_nucleus_sampling:
            raise UserError(f"`num_captions` is {num_captions}; without `use_nucleus_sampling` all would be the same")
        images = samples["image"].repeat_interleave(num_captions, dim=0)
        prompt = samples.get("prompt", self.block.prompt)
        prompts = (
            [prompt] * len(images) if isinstance(prompt, str) else [p for p in prompt for _ in range(num_captions)]
        )
        chosen = _beams(num_beams, length_penalty)
        if use_nucleus_sampling:  # each call draws anew
            chosen = {"temperature": temperature, "top_p": top_p, "seed": int(torch.randint(1 << 31, ()))}
        decoding = LavisDecoding(
            max_new_tokens=max_length, min_new_tokens=min_length, repetition_penalty=repetition_penalty, **chosen
        )
        return self._generate(prompts, images, decoding)

    def predict_answers(
        self,
        samples: dict[str, Any],
        num_beams: int = 3,
        inference_method: str = "rank",
        max_len: int = 10,
        min_len: int = 1,
        num_ans_candidates: int = 128,
        answer_list: Sequence[str] | None = None,
        prompt: str = "",
        length_penalty: float = 1.0,
        **kwargs: Any,
    ) -> list[str]:
        """Answers, in evaluation mode.

        Args:
            samples: `image` (B, 3, H, W) and `text_input`, B questions or one text.
            num_beams: Of `generate`.
            inference_method: `generate`, or `rank` for the likeliest of `answer_list`.
            max_len: As `max_length` of `generate`.
            min_len: As its `min_length`.
            num_ans_candidates: Of the list, those whose first token is likeliest are weighed as a whole.
            answer_list: What `rank` chooses from.
            prompt: With `{}` for the question, in place of the question alone.
            length_penalty: Of `generate`.
            **kwargs: What LAVIS's tasks say besides; ignored.

        Raises:
            UserError: Another method, or `rank` without a list or with one that names an answer twice.
        """
        texts = samples["text_input"]
        questions = [texts] if isinstance(texts, str) else list(texts)
        if prompt:
            questions = [prompt.format(question) for question in questions]
        if inference_method not in _METHODS:
            raise UserError(f"`inference_method` is `{inference_method}`; valid: {', '.join(_METHODS)}")
        if inference_method == "rank":
            if not answer_list:
                raise UserError(
                    "`inference_method: rank` chooses from a list and the data set has none; name one in its "
                    "`build_info`, or write `inference_method: generate`"
                )
            ranking = RankingConfig(candidates=tuple(answer_list), top_k=num_ans_candidates)
            return [answer.text for answer in self._responder.rank(questions, list(samples["image"]), ranking)]
        beams = _beams(num_beams, length_penalty)
        decoding = DecodingConfig(max_new_tokens=max_len, min_new_tokens=min_len, **beams)
        return self._generate(questions, samples["image"], decoding)

    def _generate(self, prompts: Sequence[str], images: torch.Tensor, decoding: DecodingConfig) -> list[str]:
        rows = [self._responder.encode_question(prompt, num_images=1) for prompt in prompts]
        return self._responder.generate(rows, list(images), decoding)

    # ---- checkpoints ----

    def _load_from_state_dict(self, state_dict: dict[str, torch.Tensor], prefix: str, *args: Any) -> None:
        """Called by every `load_state_dict`, strict or not, before the parts are loaded: LAVIS's checkpoints leave out
        what is frozen, which stays as it is.
        """
        expected = self.state_dict(prefix=prefix, keep_vars=True)
        check_base_keys(state_dict, expected, prefix + _TOWER, self.block.trainable)
        for key, tensor in expected.items():
            state_dict.setdefault(key, tensor.data)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _beams(num_beams: int, length_penalty: float) -> dict[str, Any]:
    """LAVIS states a length penalty for one beam too, where it has no effect."""
    return {"num_beams": num_beams, "length_penalty": length_penalty if num_beams > 1 else 1.0}


def register() -> None:
    """File the architectures in LAVIS's registry. Idempotent."""
    from lavis.common.registry import registry
    from lavis.models import BaseModel

    if registry.get_model_class(ARCHITECTURES[0]) is not None:
        return
    members = {"load_checkpoint": naming_file(BaseModel.load_checkpoint, lambda self: True)}
    cls = type("ToVEEncoderDecoder", (ToVEEncoderDecoder, BaseModel), members)
    for name in ARCHITECTURES:
        registry.register_model(name)(cls)
