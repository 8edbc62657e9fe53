"""A LLaVA model, asked in LLaVA's v1 prompt, by the code that tokenises training conversations.

An answer's log-likelihood is the sum over its tokens and the `</s>` that ends it: the log of the probability that the
model answers exactly this. As each ends with `</s>`, these are probabilities of different outcomes of one draw, and
nothing is divided by the length.

Prompts of a batch are padded on the left, so that every answer starts at the same column and is what it would be alone:
padded places are masked, and positions count from the first real token.
Shapes: B batch, R rows (question times answer), T tokens, K the last columns, 3 H W pixels.

See docs/evaluation.md, "VSR".
"""

import zlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from ..data.collator import ToVECollator
from ..data.conversations import (
    IGNORE_INDEX,
    Conversation,
    Encoded,
    encode_prompt,
    encode_v1,
    expand_image_tokens,
)
from ..data.dataset import Sample, check_context
from ..data.errors import DataError
from ..lvlm.parts import as_llava, base_model, text_config
from .batching import DecodingConfig, human_turn, pad_left
from .ranking import RankedAnswer, RankingConfig
from .responder import AnswerLogits, Responder, ScoredChoice, choices_of, likeliest


class LlavaResponder(Responder):
    """See the module's docstring; the model may be inside peft."""

    def encode_question(self, question: str, has_image: bool) -> list[int]:
        """See `Responder`; the image's placeholders are expanded."""
        ids = encode_prompt(self.tokenizer, [human_turn(question, has_image)], "v1")
        config = as_llava(self.model).config
        ids = expand_image_tokens(ids, ids, config.image_token_id, config.image_seq_length)
        if len(ids) >= self._max_length:
            raise DataError(
                f"a question of {len(ids)} tokens, the image's among them, leaves no place for an answer in the "
                f"model's context of {self._max_length}; ask a shorter one"
            )
        return ids

    def encode_answer(self, question: str, answer: str, has_image: bool) -> tuple[list[int], list[int]]:
        """(ids, labels) of a question with its answer, the placeholders expanded; labels mark the answer."""
        talk = [human_turn(question, has_image), {"from": "gpt", "value": answer}]
        encoded = encode_v1(self.tokenizer, talk, has_image)
        config = as_llava(self.model).config
        token, count = config.image_token_id, config.image_seq_length
        ids = expand_image_tokens(encoded.input_ids, encoded.input_ids, token, count)
        return ids, expand_image_tokens(encoded.labels, encoded.input_ids, IGNORE_INDEX, count)

    @torch.inference_mode()
    def generate(
        self, rows: Sequence[Sequence[int]], pixels: Sequence[torch.Tensor], decoding: DecodingConfig
    ) -> list[str]:
        """See `Responder`; an answer ends at `</s>`."""
        ids_BT, mask_BT = pad_left(rows, self.tokenizer.pad_token_id)
        if decoding.temperature:
            torch.manual_seed(decoding.seed + zlib.crc32(repr(rows).encode()))
        generating: Any = self.model  # `generate` is annotated with a protocol that transformers' models do not fulfil
        out_BT = generating.generate(
            **self.model_inputs(ids_BT, mask_BT, pixels),
            **decoding.arguments(),
            use_cache=True,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
        )
        return self._texts(out_BT[:, ids_BT.shape[1] :], self.tokenizer.eos_token_id)

    @torch.inference_mode()
    def score_choices(
        self,
        questions: Sequence[str],
        answers: Sequence[Sequence[str]],
        pixels: Sequence[torch.Tensor | None],
    ) -> list[list[ScoredChoice]]:
        """See `Responder`."""
        rows, repeated = [], []
        for question, choices, pixels_3HW in zip(questions, answers, pixels, strict=True):
            for answer in choices:
                rows.append(self.encode_answer(question, answer, pixels_3HW is not None))
                repeated += [] if pixels_3HW is None else [pixels_3HW]
        ids_RT, mask_RT = pad_left([ids for ids, _ in rows], self.tokenizer.pad_token_id)
        labels_RT, _ = pad_left([labels for _, labels in rows], IGNORE_INDEX)
        # Padding is on the left, so all answers end in the last column and only the last logits are needed.
        num = max(sum(label != IGNORE_INDEX for label in labels) for _, labels in rows)
        inputs = self.model_inputs(ids_RT, mask_RT, repeated)
        device = as_llava(self.model).device
        position_RT = (mask_RT.cumsum(1) - 1).clamp(min=0).to(device)
        out = self.model(**inputs, position_ids=position_RT, logits_to_keep=num + 1, use_cache=False)
        return choices_of(out.logits[:, :-1], labels_RT[:, -num:].to(device), IGNORE_INDEX, answers)

    @torch.inference_mode()
    def rank(
        self, questions: Sequence[str], pixels: Sequence[torch.Tensor | None], ranking: RankingConfig
    ) -> list[RankedAnswer]:
        """See `Responder`."""
        ids_BT, mask_BT = pad_left(self._prompts(questions, pixels), self.tokenizer.pad_token_id)
        inputs = self.model_inputs(ids_BT, mask_BT, [one for one in pixels if one is not None])
        position_BT = (mask_BT.cumsum(1) - 1).clamp(min=0).to(inputs["input_ids"].device)
        out = self.model(**inputs, position_ids=position_BT, logits_to_keep=1, use_cache=False)
        shortlists = ranking.shortlists(self._first_tokens(ranking.candidates), out.logits[:, -1])
        ranked = []
        for question, answers, one in zip(questions, shortlists, pixels, strict=True):
            (choices,) = self.score_choices([question], [answers], [one])
            ranked.append(likeliest(answers, choices))
        return ranked

    def _first_tokens(self, answers: tuple[str, ...]) -> list[int]:
        """Of each answer, as it follows a question."""
        if answers not in self._first_tokens_of:
            labels_of = [self.encode_answer("", answer, has_image=False)[1] for answer in answers]
            self._first_tokens_of[answers] = [next(t for t in labels if t != IGNORE_INDEX) for labels in labels_of]
        return self._first_tokens_of[answers]

    def prefill(self, ids_BT: torch.Tensor, pixels_B3HW: torch.Tensor) -> Any:
        """See `Responder`."""
        return self.model(input_ids=ids_BT, pixel_values=pixels_B3HW, use_cache=True, logits_to_keep=1)

    def encode_conversation(self, conversation: Conversation) -> list[Encoded]:
        """See `Responder`; one row, as in stage 2's training."""
        core = base_model(self.model)
        encoded = encode_v1(self.tokenizer, conversation, has_image=True)
        check_context(encoded, core.config.image_seq_length, self._max_length)
        return [encoded]

    def visual_tokens(self, t_fuse_BND: torch.Tensor) -> torch.Tensor:
        """See `Responder`: the projector's."""
        visual_BND: torch.Tensor = base_model(self.model).model.multi_modal_projector(t_fuse_BND)
        return visual_BND

    def answer_logits(self, rows: Sequence[Encoded], visual_RND: torch.Tensor) -> AnswerLogits:
        """See `Responder`; as stock `LlavaForConditionalGeneration` computes them, only where there is a label."""
        core, device = base_model(self.model), visual_RND.device
        seen = torch.empty(0)  # the image's place; its pixels have been read
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

    def model_inputs(
        self, ids_BT: torch.Tensor, mask_BT: torch.Tensor, pixels: Sequence[torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """What a LLaVA model takes, on its device and in its dtype."""
        llava = as_llava(self.model)
        inputs = {"input_ids": ids_BT.to(llava.device), "attention_mask": mask_BT.to(llava.device)}
        if len(pixels):
            inputs["pixel_values"] = torch.stack(list(pixels)).to(llava.device, llava.dtype)
        return inputs
