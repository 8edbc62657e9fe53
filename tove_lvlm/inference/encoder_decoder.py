"""The base model, asked as it was trained: the decoder goes on from the question, whose image it looks at.

A caption's prompt is its prefix, or nothing at all. Answers are weighed as in `llava`: the sum of the log-probabilities
of an answer's tokens and of the end.

The tower sees a picture once, whatever is asked about it. Decoders give no way to skip places on the left, so prompts
of one length are generated together.
Shapes: B batch, Q questions, R rows (question times answer), T tokens, N visual tokens, D width, 3 H W pixels.
"""

import zlib
from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers import VisionEncoderDecoderModel
from transformers.modeling_outputs import BaseModelOutput

from ..config import UserError
from ..data.conversations import IGNORE_INDEX, Encoded
from ..data.turns import IMAGE_TOKEN, Conversation, rounds
from .batching import DecodingConfig, pad_right
from .ranking import RankedAnswer, RankingConfig
from .responder import AnswerLogits, Responder, ScoredChoice, choices_of, likeliest
from .shared import Pixels, PixelsAbout, SharedPicture, pixel_list, pixels_of
from .watching import OnText, TokenWatch


class EncoderDecoderResponder(Responder):
    """See the module's docstring."""

    @property
    def picture_bytes(self) -> int:
        """See `Responder`: the tower's tokens."""
        tower = self._model.encoder.config
        tokens = tower.num_tokens * tower.hidden_size * self._model.dtype.itemsize
        return int(tokens + 3 * tower.image_size**2 * torch.float32.itemsize)

    def encode_question(self, question: str, num_images: int) -> list[int]:
        """See `Responder`; about one image."""
        if num_images != 1:
            raise UserError(
                f"the base model answers about one image only; there {'are' if num_images else 'is'} "
                f"{num_images or 'none'} for `{question}`"
            )
        return self.processor.prompt_ids(question)

    def encode_turns(self, conversation: Conversation, num_images: int) -> list[int]:
        """See `Responder`; the last question alone."""
        return self.encode_question(conversation[-1]["value"].replace(IMAGE_TOKEN, "").strip(), num_images)

    @torch.inference_mode()
    def generate(
        self,
        rows: Sequence[Sequence[int]],
        pixels: Sequence[Pixels],
        decoding: DecodingConfig,
        on_text: OnText | None = None,
    ) -> list[str]:
        """See `Responder`."""
        ends = [self.processor.end_token_id]
        tokens_BND = self._see(pixels)
        generating: Any = self.model  # `generate` is annotated with a protocol that transformers' models do not fulfil
        texts = [""] * len(rows)
        for length in sorted({len(row) for row in rows}):
            chosen = [index for index, row in enumerate(rows) if len(row) == length]
            ids_BT = torch.tensor([list(rows[index]) for index in chosen], device=generating.device)
            if decoding.temperature:
                torch.manual_seed(decoding.seed + zlib.crc32(repr(ids_BT.tolist()).encode()))
            watched = {} if on_text is None else TokenWatch(self.tokenizer, ends, on_text, length).arguments()
            options = decoding.arguments()
            for name in options.keys() & {"max_new_tokens", "min_new_tokens"}:
                options[name] = min(options[name], self._room(length))
            out_BT = generating.generate(
                encoder_outputs=BaseModelOutput(last_hidden_state=cast(torch.FloatTensor, tokens_BND[chosen])),
                decoder_input_ids=ids_BT,
                **options,
                **watched,
                use_cache=True,
            )
            for index, text in zip(chosen, self._texts(out_BT[:, length:], ends), strict=True):
                texts[index] = text
        return texts

    @torch.inference_mode()
    def score_choices(
        self,
        questions: Sequence[str],
        answers: Sequence[Sequence[str]],
        pixels: Sequence[PixelsAbout],
    ) -> list[list[ScoredChoice]]:
        """See `Responder`; each image is read once, however many answers it has."""
        about = [pixel_list(one) for one in pixels]
        prompts = self._prompts(questions, about)  # refuses what is not about one image
        return self._score(prompts, answers, self._see([one for (one,) in about]))

    @torch.inference_mode()
    def rank(
        self, questions: Sequence[str], pixels: Sequence[PixelsAbout], ranking: RankingConfig
    ) -> list[RankedAnswer]:
        """See `Responder`; each image is read once."""
        about = [pixel_list(one) for one in pixels]
        prompts = self._prompts(questions, about)
        tokens_QND = self._see([one for (one,) in about])
        logits_QTV = self._logits(prompts, tokens_QND)
        ranked = []
        for question, prompt in enumerate(prompts):
            next_V = logits_QTV[question, len(prompt) - 1]
            (answers,) = ranking.shortlists(self._first_tokens(prompt, ranking.candidates), next_V[None])
            (choices,) = self._score([prompt], [answers], tokens_QND[question : question + 1])
            ranked.append(likeliest(answers, choices))
        return ranked

    def _first_tokens(self, prompt: Sequence[int], answers: tuple[str, ...]) -> list[int]:
        """Of each answer, as it follows a prompt: behind one, a blank may be a part of it."""
        key = (len(prompt) > 1, answers)
        if key not in self._first_tokens_of:
            rows = [self.processor.answer_ids(prompt, answer).input_ids for answer in answers]
            self._first_tokens_of[key] = [ids[len(prompt)] for ids in rows]
        return self._first_tokens_of[key]

    def _see(self, pictures: Sequence[Pixels]) -> torch.Tensor:
        """(Q, N, D) the tower's tokens; each picture that has not been seen is seen once."""
        kept = {id(one): one.kept for one in pictures if isinstance(one, SharedPicture) and one.kept is not None}
        new = {id(one): one for one in pictures if id(one) not in kept}
        if new:
            stacked_B3HW = self._stack([pixels_of(one) for one in new.values()])
            tokens_BND: torch.Tensor = self._model.encoder(pixel_values=stacked_B3HW)[0]
            if len(new) == len(pictures) and not any(isinstance(one, SharedPicture) for one in pictures):
                return tokens_BND
            for (key, one), tokens_ND in zip(new.items(), tokens_BND, strict=True):
                kept[key] = tokens_ND.clone()  # not a part of the batch, which goes
                if isinstance(one, SharedPicture):
                    one.kept = kept[key]
        return torch.stack([kept[id(one)] for one in pictures])

    def _score(
        self, prompts: Sequence[list[int]], answers: Sequence[Sequence[str]], tokens_QND: torch.Tensor
    ) -> list[list[ScoredChoice]]:
        """As `score_choices`, the images seen already."""
        rows = [
            self.processor.answer_ids(prompt, answer)
            for prompt, choices in zip(prompts, answers, strict=True)
            for answer in choices
        ]
        repeats_Q = torch.tensor([len(choices) for choices in answers], device=tokens_QND.device)
        logits_RTV, labels_RT = self._read(rows, tokens_QND.repeat_interleave(repeats_Q, dim=0))
        return choices_of(logits_RTV, labels_RT, IGNORE_INDEX, answers)

    def prefill(self, ids_BT: torch.Tensor, pixels_B3HW: torch.Tensor) -> Any:
        """See `Responder`."""
        return self.model(pixel_values=pixels_B3HW, decoder_input_ids=ids_BT, use_cache=True)

    @property
    def _model(self) -> VisionEncoderDecoderModel:
        return cast(VisionEncoderDecoderModel, self.model)

    def encode_conversation(self, conversation: Conversation) -> list[Encoded]:
        """See `Responder`; a row for each question."""
        rows: list[Encoded] = self.processor.encode_rounds(rounds(conversation))
        return rows

    def visual_tokens(self, t_fuse_BND: torch.Tensor) -> torch.Tensor:
        """See `Responder`: the same; the model itself brings them to the decoder's width."""
        return t_fuse_BND

    def answer_logits(self, rows: Sequence[Encoded], visual_RND: torch.Tensor) -> AnswerLogits:
        """See `Responder`."""
        logits_RTV, labels_RT = self._read(rows, visual_RND)
        labelled_RT = labels_RT != IGNORE_INDEX
        return AnswerLogits(logits_RTV[labelled_RT].float(), labels_RT[labelled_RT], labelled_RT)

    def _read(self, rows: Sequence[Encoded], tokens_RND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and, at the same places, the labels."""
        labels_RT = pad_right([row.labels for row in rows], IGNORE_INDEX)
        logits_RTV = self._logits([row.input_ids for row in rows], tokens_RND)
        return logits_RTV[:, :-1], labels_RT[:, 1:].to(logits_RTV.device)

    def _logits(self, rows: Sequence[Sequence[int]], tokens_RND: torch.Tensor) -> torch.Tensor:
        """(R, T, V) what the decoder says after each token of some rows, which are padded on the right."""
        model = self._model
        ids_RT = pad_right(rows, cast(int, model.generation_config.pad_token_id))
        seen = BaseModelOutput(last_hidden_state=cast(torch.FloatTensor, tokens_RND))
        logits_RTV: torch.Tensor = model(
            encoder_outputs=seen, decoder_input_ids=ids_RT.to(model.device), use_cache=False
        ).logits
        return logits_RTV

    def _room(self, length: int) -> int:
        """Tokens that the decoder has positions for after a prompt."""
        context = self.processor.max_length
        if length >= context:
            raise UserError(f"a question of {length} tokens fills the decoder's context of {context}; shorten it")
        return int(context - length)

    def _stack(self, pixels: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack(list(pixels)).to(self._model.device, self._model.dtype)
