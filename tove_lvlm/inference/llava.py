"""A LLaVA model, asked in the conversation that it was trained with, by the code that tokenises those of training.

An answer's log-likelihood is the sum over its tokens and the one that ends it (`</s>`): the log of the probability that
the model answers exactly this. As each ends alike, these are probabilities of different outcomes of one draw, and
nothing is divided by the length.

Prompts of a batch are padded on the left, so that every answer starts at the same column and is what it would be alone:
padded places are masked, and positions count from the first real token.

Prompts go on from what is kept of their pictures (`prompts`), and several answers from what was made of their question.
Shapes: B batch, Q questions, R rows (question times answer), T tokens, K the last columns, 3 H W pixels.

See docs/evaluation.md, "VSR".
"""

import zlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import nn

from ..data.collator import ToVECollator
from ..data.conversations import (
    IGNORE_INDEX,
    Encoded,
    encode,
    end_ids,
    expand_image_tokens,
)
from ..data.dataset import Sample, check_context
from ..data.errors import DataError
from ..data.turns import Conversation
from ..lvlm.parts import as_llava, base_model, text_config
from .batching import DecodingConfig, human_turn, pad_left, pad_right
from .cache import CACHE, read_by
from .prompts import Part, PromptReader, model_inputs
from .ranking import RankedAnswer, RankingConfig
from .responder import AnswerLogits, Responder, ScoredChoice, choices_of, likeliest
from .shared import Pixels, PixelsAbout, SharedPicture, pixel_list, pixels_of, share_repeated
from .watching import OnText, TokenWatch


class LlavaResponder(Responder):
    """See the module's docstring; the model may be inside peft."""

    def __init__(self, model: nn.Module, processor: Any):
        super().__init__(model, processor)
        self._reader = PromptReader(model, self.tokenizer)
        self._template, self._ends = self._reader.template, end_ids(self.tokenizer)

    @property
    def picture_bytes(self) -> int:
        """See `Responder`."""
        return self._reader.picture_bytes

    def encode_question(self, question: str, num_images: int) -> list[int]:
        """See `Responder`; the images' placeholders are expanded."""
        return self.encode_turns([human_turn(question, num_images)], num_images)

    def encode_turns(self, conversation: Conversation, num_images: int) -> list[int]:
        """See `Responder`; the images' placeholders are expanded."""
        ids = self._reader.prompt_ids(conversation, num_images)
        if len(ids) >= self._max_length:
            raise DataError(
                f"a question of {len(ids)} tokens, the image's among them, leaves no place for an answer in the "
                f"model's context of {self._max_length}; ask a shorter one"
            )
        return ids

    def encode_answer(self, question: str, answer: str, num_images: int) -> Encoded:
        """Ids and labels of a question with its answer, the placeholders expanded; labels mark the answer, which comes
        last: what a chat template writes after it is cut off.
        """
        talk = [human_turn(question, num_images), {"from": "gpt", "value": answer}]
        encoded = encode(self.tokenizer, talk, self._template, num_images)
        learnt = [place for place, label in enumerate(encoded.labels) if label != IGNORE_INDEX]
        end = learnt[-1] + 1 if learnt else None
        encoded = Encoded(encoded.input_ids[:end], encoded.labels[:end])
        config = as_llava(self.model).config
        token, count = config.image_token_id, config.image_seq_length
        ids = expand_image_tokens(encoded.input_ids, encoded.input_ids, token, count)
        return Encoded(ids, expand_image_tokens(encoded.labels, encoded.input_ids, IGNORE_INDEX, count))

    @torch.inference_mode()
    def generate(
        self,
        rows: Sequence[Sequence[int]],
        pixels: Sequence[Pixels],
        decoding: DecodingConfig,
        on_text: OnText | None = None,
    ) -> list[str]:
        """See `Responder`."""
        texts = [""] * len(rows)
        for part in self._reader.parts(rows, pixels):
            inputs = self._reader.inputs(part)
            if decoding.num_beams > 1 and CACHE in inputs:
                inputs[CACHE].batch_repeat_interleave(decoding.num_beams)
            if decoding.temperature:
                torch.manual_seed(decoding.seed + zlib.crc32(repr(part.rows).encode()))
            length = inputs["input_ids"].shape[1]
            watched = {} if on_text is None else TokenWatch(self.tokenizer, self._ends, on_text, length).arguments()
            generating: Any = self.model  # `generate` is annotated with a protocol that no model fulfils
            out_BT = generating.generate(
                **inputs,
                **decoding.arguments(),
                **watched,
                use_cache=True,
                pad_token_id=self.tokenizer.pad_token_id,
                eos_token_id=self._ends,
            )
            said = self._texts(out_BT[:, length:], self._ends)
            for place, text in zip(part.places, said, strict=True):
                texts[place] = text
        return texts

    @torch.inference_mode()
    def score_choices(
        self,
        questions: Sequence[str],
        answers: Sequence[Sequence[str]],
        pixels: Sequence[PixelsAbout],
    ) -> list[list[ScoredChoice]]:
        """See `Responder`."""
        about = [pixel_list(one) for one in pixels]
        shared = iter(share_repeated([one for several in about for one in several]))
        pictures = [[next(shared) for _ in several] for several in about]
        kept = any(isinstance(one, SharedPicture) for several in pictures for one in several)
        if not self._reader.beginning or (not kept and all(len(choices) < 2 for choices in answers)):
            return self._score_whole(questions, answers, about)
        rows = [
            [self.encode_answer(question, answer, len(several)) for answer in choices]
            for question, choices, several in zip(questions, answers, pictures, strict=True)
        ]
        asked = [place for place, choices in enumerate(rows) if choices]
        seen = [one for place in asked for one in pictures[place]]
        scored: list[list[ScoredChoice]] = [[] for _ in questions]
        for part in self._reader.parts([common_start(rows[place]) for place in asked], seen):
            chosen = [asked[index] for index in part.places]
            values = self._score(part, [rows[place] for place in chosen], [answers[place] for place in chosen])
            for place, choices in zip(chosen, values, strict=True):
                scored[place] = choices
        return scored

    def _score(
        self, part: Part, rows: Sequence[list[Encoded]], answers: Sequence[Sequence[str]]
    ) -> list[list[ScoredChoice]]:
        """As `score_choices`: the beginnings are read once, the answers from there on.

        Args:
            part: A common beginning for each question.
            rows: Of each question its answers, with that beginning.
            answers: Their texts.
        """
        output, mask_QT = self._reader.read(part)
        of_question = [(q, row, len(head)) for q, head in enumerate(part.rows) for row in rows[q]]
        rows_R = torch.tensor([q for q, _, _ in of_question], device=mask_QT.device)
        ids_RK = pad_right([row.input_ids[start:] for _, row, start in of_question], self.tokenizer.pad_token_id)
        labels_RK = pad_right([row.labels[start:] for _, row, start in of_question], IGNORE_INDEX).to(mask_QT.device)
        mask_RT = torch.cat([mask_QT[rows_R], mask_QT.new_ones(ids_RK.shape)], dim=1)
        logits_RKV = self.model(
            input_ids=ids_RK.to(mask_QT.device),
            attention_mask=mask_RT,
            position_ids=(mask_RT.cumsum(1) - 1)[:, -ids_RK.shape[1] :],
            use_cache=True,
            **{CACHE: read_by(output[CACHE], rows_R)},
        ).logits
        return choices_of(logits_RKV[:, :-1], labels_RK[:, 1:], IGNORE_INDEX, answers)

    def _score_whole(
        self, questions: Sequence[str], answers: Sequence[Sequence[str]], about: Sequence[Sequence[Pixels]]
    ) -> list[list[ScoredChoice]]:
        """As `score_choices`, each answer with all that stands before it."""
        rows: list[Encoded] = []
        repeated: list[torch.Tensor] = []
        for question, choices, several in zip(questions, answers, about, strict=True):
            for answer in choices:
                rows.append(self.encode_answer(question, answer, len(several)))
                repeated += map(pixels_of, several)
        ids_RT, mask_RT = pad_left([row.input_ids for row in rows], self.tokenizer.pad_token_id)
        labels_RT, _ = pad_left([row.labels for row in rows], IGNORE_INDEX)
        # Padding is on the left, so all answers end in the last column and only the last logits are needed.
        num = max(sum(label != IGNORE_INDEX for label in row.labels) for row in rows)
        inputs = model_inputs(self.model, ids_RT, mask_RT, repeated)
        device = as_llava(self.model).device
        position_RT = (mask_RT.cumsum(1) - 1).clamp(min=0).to(device)
        out = self.model(**inputs, position_ids=position_RT, logits_to_keep=num + 1, use_cache=False)
        return choices_of(out.logits[:, :-1], labels_RT[:, -num:].to(device), IGNORE_INDEX, answers)

    @torch.inference_mode()
    def rank(
        self, questions: Sequence[str], pixels: Sequence[PixelsAbout], ranking: RankingConfig
    ) -> list[RankedAnswer]:
        """See `Responder`; question by question, as each has many answers."""
        first_tokens, ranked = self._first_tokens(ranking.candidates), []
        for question, about in zip(questions, pixels, strict=True):
            pictures = [one if isinstance(one, SharedPicture) else SharedPicture(one) for one in pixel_list(about)]
            (part,) = self._reader.parts([self.encode_question(question, len(pictures))], pictures)
            (answers,) = ranking.shortlists(first_tokens, self._reader.read(part)[0].logits[:, -1])
            (choices,) = self.score_choices([question], [answers], [pictures])
            ranked.append(likeliest(answers, choices))
        return ranked

    def _first_tokens(self, answers: tuple[str, ...]) -> list[int]:
        """Of each answer, as it follows a question."""
        if answers not in self._first_tokens_of:
            labels_of = [self.encode_answer("", answer, num_images=0)[1] for answer in answers]
            self._first_tokens_of[answers] = [next(t for t in labels if t != IGNORE_INDEX) for labels in labels_of]
        return self._first_tokens_of[answers]

    def prefill(self, ids_BT: torch.Tensor, pixels_B3HW: torch.Tensor) -> Any:
        """See `Responder`."""
        return self.model(input_ids=ids_BT, pixel_values=pixels_B3HW, use_cache=True, logits_to_keep=1)

    def encode_conversation(self, conversation: Conversation) -> list[Encoded]:
        """See `Responder`; one row, as in stage 2's training."""
        core = base_model(self.model)
        encoded = encode(self.tokenizer, conversation, self._template, num_images=1)
        check_context(encoded, core.config.image_seq_length, self._max_length)
        return [encoded]

    def visual_tokens(self, t_fuse_BND: torch.Tensor) -> torch.Tensor:
        """See `Responder`: the projector's."""
        visual_BND: torch.Tensor = base_model(self.model).model.multi_modal_projector(t_fuse_BND)
        return visual_BND

    def answer_logits(self, rows: Sequence[Encoded], visual_RND: torch.Tensor) -> AnswerLogits:
        """See `Responder`; as stock `LlavaForConditionalGeneration` computes them, only where there is a label."""
        core, device = base_model(self.model), visual_RND.device
        seen = torch.empty(1, 0)  # the image's place; its pixels have been read
        batch = self._collate(
            [Sample(input_ids=row.input_ids, labels=row.labels, pixel_values=seen, sample_id="") for row in rows]
        )
        ids_RT, mask_RT = batch["input_ids"].to(device), batch["attention_mask"].to(device)
        embeds_RTD = core.get_input_embeddings()(ids_RT)
        places_RT1 = (ids_RT == core.config.image_token_id)[..., None]
        embeds_RTD = embeds_RTD.masked_scatter(places_RT1, visual_RND.to(embeds_RTD.dtype))
        output = core.model.language_model(inputs_embeds=embeds_RTD, attention_mask=mask_RT, use_cache=False)
        targets_RT = batch["labels"][:, 1:].to(device)
        labelled_RT = targets_RT != IGNORE_INDEX
        logits_MV = core.lm_head(output.last_hidden_state[:, :-1][labelled_RT]).float()
        return AnswerLogits(logits_MV, targets_RT[labelled_RT], labelled_RT)

    @property
    def _max_length(self) -> int:
        context = text_config(base_model(self.model).config).max_position_embeddings
        return min(self.tokenizer.model_max_length, context)

    @cached_property
    def _collate(self) -> ToVECollator:
        return ToVECollator(
            tokenizer=self.tokenizer,
            num_image_tokens=base_model(self.model).config.image_seq_length,
            image_shape=(3, 1, 1),
            model_max_length=self._max_length,
        )


def common_start(rows: Sequence[Encoded]) -> list[int]:
    """Ids that answers to one question all begin with, up to before the token that says the first one's beginning.

    That token is left for what comes after: the forward that reads an answer must say its first token too.
    """
    ids = rows[0].input_ids
    end = min(next(place for place, label in enumerate(one.labels) if label != IGNORE_INDEX) for one in rows) - 1
    while any(row.input_ids[:end] != ids[:end] for row in rows):
        end -= 1
    return ids[:end]
