"""What asks a model: one interface for every kind of model that answers questions about images.

How a question becomes tokens, how pictures reach the language model and how an answer is read differ from kind to kind;
chat, evaluation and the harnesses know only this interface. `inference.responder_of` chooses.

Shapes: B batch, R rows, T tokens, M places with a label, V vocabulary, N visual tokens, D width, 3 H W pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from ..data.conversations import Encoded
from ..data.turns import Conversation
from .batching import DecodingConfig
from .ranking import RankedAnswer, RankingConfig
from .shared import Pixels, PixelsAbout
from .watching import OnText


class ScoredChoice(NamedTuple):
    """What a model thinks of one answer."""

    log_likelihood: float
    greedy: bool
    """Whether it is what greedy decoding says: each of its tokens is the likeliest one."""


class AnswerLogits(NamedTuple):
    """What a model says at the places of right answers, row after row."""

    logits_MV: torch.Tensor
    """float32."""
    targets_M: torch.Tensor
    """The right tokens."""
    labelled_RT: torch.Tensor
    """Which places of the rows these are."""


class Responder(ABC):
    """A model with its processor, to be asked.

    Args:
        model: In eval mode.
        processor: Its own: an image processor and a tokenizer.
    """

    def __init__(self, model: nn.Module, processor: Any):
        self.model, self.processor = model, processor
        self.tokenizer = processor.tokenizer
        self._first_tokens_of: dict[Hashable, list[int]] = {}
        """Of lists of candidate answers, which are the same for thousands of questions."""

    @property
    @abstractmethod
    def picture_bytes(self) -> int:
        """What a `SharedPicture` takes once it has been asked about, its pixels included; 0 where nothing is kept."""

    @abstractmethod
    def encode_question(self, question: str, num_images: int) -> list[int]:
        """Ids of the prompt that the model goes on from.

        Args:
            question: Plain text.
            num_images: How many images it is about.

        Raises:
            UserError: The model answers nothing about so many images.
            DataError: The question leaves no place for an answer in the model's context.
        """

    @abstractmethod
    def encode_turns(self, conversation: Conversation, num_images: int) -> list[int]:
        """As `encode_question`, of a conversation that ends with a question.

        Args:
            conversation: LLaVA's; its images stand in its first turn. A model that knows no conversations is asked its
                last question.
            num_images: How many images it is about.
        """

    @abstractmethod
    def generate(
        self,
        rows: Sequence[Sequence[int]],
        pixels: Sequence[Pixels],
        decoding: DecodingConfig,
        on_text: OnText | None = None,
    ) -> list[str]:
        """The texts that follow some prompts.

        Args:
            rows: Ids of `encode_question`.
            pixels: (3, H, W) for each image of each row, in the rows' order. The tower sees a tensor or a
                `SharedPicture` once, in however many places it stands, and what it makes of the latter stays with it.
            decoding: How.
            on_text: Told of the text after each token, of one row that is answered without beams; it may end it.
        """

    @abstractmethod
    def score_choices(
        self,
        questions: Sequence[str],
        answers: Sequence[Sequence[str]],
        pixels: Sequence[PixelsAbout],
    ) -> list[list[ScoredChoice]]:
        """How likely each answer to each question is, all in one batch.

        Args:
            questions: Plain text.
            answers: For each question the answers to weigh.
            pixels: As for `generate`, for each question; several where it is about several images, None for none.

        Returns:
            For each question one choice for each of its answers; those of batch size 1 up to rounding.
        """

    @abstractmethod
    def rank(
        self, questions: Sequence[str], pixels: Sequence[PixelsAbout], ranking: RankingConfig
    ) -> list[RankedAnswer]:
        """The likeliest answer to each question out of a list, see `ranking`.

        Args:
            questions: Plain text.
            pixels: As for `score_choices`.
            ranking: The list.
        """

    @abstractmethod
    def prefill(self, ids_BT: torch.Tensor, pixels_B3HW: torch.Tensor) -> Any:
        """Read a prompt and its image, up to the first token of the answer; the model's output.

        Args:
            ids_BT: Ids of `encode_question`, on the model's device.
            pixels_B3HW: An image for each.
        """

    @abstractmethod
    def encode_conversation(self, conversation: Conversation) -> list[Encoded]:
        """A conversation about one image with its right answers, as rows for `answer_logits`.

        Args:
            conversation: LLaVA's.

        Raises:
            DataError: It does not fit, or has no answer.
        """

    @abstractmethod
    def visual_tokens(self, t_fuse_BND: torch.Tensor) -> torch.Tensor:
        """What the language model sees of a tower's tokens."""

    @abstractmethod
    def answer_logits(self, rows: Sequence[Encoded], visual_RND: torch.Tensor) -> AnswerLogits:
        """What the model says at each place of the right answers, which it is shown.

        Args:
            rows: Of `encode_conversation`.
            visual_RND: For each row the `visual_tokens` of its image.
        """

    def log_likelihoods(
        self,
        questions: Sequence[str],
        answers: Sequence[Sequence[str]],
        pixels: Sequence[PixelsAbout],
    ) -> list[list[float]]:
        """As `score_choices`, the log-likelihoods alone."""
        scored = self.score_choices(questions, answers, pixels)
        return [[choice.log_likelihood for choice in choices] for choices in scored]

    def num_kept(self, keep_bytes: int) -> int:
        """How many pictures may be kept at a time in some memory."""
        return keep_bytes // self.picture_bytes if self.picture_bytes else 0

    def _prompts(self, questions: Sequence[str], about: Sequence[Sequence[Pixels]]) -> list[list[int]]:
        """Ids of each question's prompt."""
        return [self.encode_question(text, len(several)) for text, several in zip(questions, about, strict=True)]

    def _texts(self, out_BT: torch.Tensor, ends: Sequence[int]) -> list[str]:
        """What was generated, until one of the tokens that end an answer."""
        texts = []
        for row in out_BT.tolist():
            stop = next((place for place, token in enumerate(row) if token in ends), len(row))
            texts.append(self.tokenizer.decode(row[:stop], skip_special_tokens=True).strip())
        return texts


def likeliest(answers: Sequence[str], choices: Sequence[ScoredChoice]) -> RankedAnswer:
    """Of some answers to a question the likeliest, the first among equals."""
    ranked = [RankedAnswer(text, choice.log_likelihood) for text, choice in zip(answers, choices, strict=True)]
    return max(ranked, key=lambda answer: answer.log_likelihood)


def choices_of(
    logits_RKV: torch.Tensor, labels_RK: torch.Tensor, ignored: int, answers: Sequence[Sequence[str]]
) -> list[list[ScoredChoice]]:
    """Sums of the log-probabilities of labels, and whether each is the likeliest token.

    Args:
        logits_RKV: At each place what the model says of the label there.
        labels_RK: Token ids; `ignored` where there is none.
        ignored: See there.
        answers: For each question its answers, in the order of the rows.
    """
    labelled_RK = labels_RK != ignored
    log_p_RKV = logits_RKV.float().log_softmax(-1)
    log_p_RK = log_p_RKV.gather(-1, labels_RK.where(labelled_RK, 0)[..., None])[..., 0]
    sums_R = log_p_RK.where(labelled_RK, 0.0).sum(1)
    greedy_R = ((log_p_RKV.argmax(-1) == labels_RK) | ~labelled_RK).all(1)
    scored = map(ScoredChoice, sums_R.tolist(), greedy_R.tolist())
    return [[next(scored) for _ in choices] for choices in answers]
