"""`tove_llava`: a ToVE checkpoint asked by lmms-eval with the prompt and the pixels of its training.

See docs/hosts.md, "lmms-eval".
"""

import os
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from tqdm import tqdm

from ... import dist
from ...checkpoints import load_model
from ...config import ConfigError
from ...inference import responder_of
from ...inference.batching import PixelReader, length_sorted
from ...inference.chat import answer
from ...inference.responder import ScoredChoice
from ...inference.shared import picture_key
from ...registry import nearest, require
from ...storage.tensors import DTYPES
from .decoding import GenerationOptions
from .requests import Document, Prompt, by_decoding

_BATCHES_AT_ONCE = 8


class ToVELlava(require("lmms_eval.api.model", extra="lmms-eval").lmms):  # type: ignore[misc]  # names the extra
    """A LLaVA model of this package behind lmms-eval's interface.

    Args:
        pretrained: A merged folder or an adapter, as `tove chat` takes.
        device: Where to; none takes this process's GPU when there is one.
        dtype: `auto` takes the one on disk.
        batch_size: Questions answered together; the answers do not depend on it.
        image_aspect_ratio: `pad` or `square`; none takes that of training.
        max_batch_size: Of `batch_size` "auto" only, and then the batch size.

    Raises:
        UserError: The folder holds no such model, or an argument has no valid value.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str = "",
        device: str | None = None,
        dtype: str = "auto",
        batch_size: int | str = 1,
        image_aspect_ratio: str | None = None,
        max_batch_size: int | None = None,
        **unknown: Any,
    ):
        super().__init__()
        valid = ("pretrained", "device", "dtype", "batch_size", "image_aspect_ratio", "max_batch_size")
        for name in unknown:
            raise ConfigError(f"tove_llava has no argument `{name}`; {nearest(name, valid)}")
        if not pretrained:
            raise ConfigError("tove_llava needs `--model_args pretrained=FOLDER`, the folder of a model")
        if dtype != "auto" and dtype not in DTYPES:
            raise ConfigError(f"`dtype` is `{dtype}`; {nearest(str(dtype), ('auto', *DTYPES))}")
        self.batch_size = _batch_size(batch_size, max_batch_size)
        loaded = load_model(str(pretrained))
        self._device = torch.device(device or _own_device())
        self._model = loaded.model.to(self._device, DTYPES.get(dtype)).eval()
        self.processor = loaded.processor
        self.image_aspect_ratio = image_aspect_ratio or loaded.image_aspect_ratio
        self._rank, self._world_size = dist.rank(), dist.world_size()

    @property
    def device(self) -> torch.device:
        """Of the model; the evaluator gathers counts on it."""
        return self._device

    @property
    def tokenizer(self) -> Any:
        """Of the language model."""
        return self.processor.tokenizer

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answer `(context, gen_kwargs, doc_to_visual, doc_id, task, split)` requests, in their order.

        Raises:
            UserError: A request shows a video or sound; generation arguments that are not valid.
        """
        answers = [""] * len(requests)
        with self._progress(len(requests)) as bar:
            for decoding, order in by_decoding(requests).items():
                for indices in _chunks(order, self.batch_size * _BATCHES_AT_ONCE):
                    prompts = [self._prompt(*requests[i].args) for i in indices]
                    for i, text in zip(indices, self._answer(prompts, decoding), strict=True):
                        answers[i] = text
                        self.cache_hook.add_partial("generate_until", requests[i].args[:2], text)
                    bar.update(len(indices))
        return answers

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[list[str]]:
        """Answer `(context, gen_kwargs, doc_to_visual, doc_to_text, doc_id, task, split)` requests round by round.

        Each round is a conversation of its own, as lmms-eval's LLaVA models have it: `doc_to_text` is shown the answers
        so far and says what is asked next, or that this was all.

        Returns:
            For each request, the answers that `doc_to_text` kept.
        """
        answers: list[list[str]] = [[] for _ in requests]
        with self._progress(len(requests)) as bar:
            for decoding, order in by_decoding(requests).items():
                for indices in _chunks(order, self.batch_size):
                    for i, rounds in zip(indices, self._rounds([requests[i] for i in indices], decoding), strict=True):
                        answers[i] = rounds
                    bar.update(len(indices))
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Weigh the answers of `(context, answer or doc_to_target, doc_to_visual, doc_id, task, split)` requests.

        Returns:
            For each request the *negative* log-likelihood of the whole answer, `</s>` included, and whether greedy
            decoding gives it. lmms-eval's LLaVA models return a loss too: its multiple choice takes the smallest.

        Raises:
            UserError: As for `generate_until`.
        """
        scores = [(0.0, False)] * len(requests)
        pixels_of = PixelReader(self.processor.image_processor, self.image_aspect_ratio)
        with self._progress(len(requests)) as bar:
            for indices in length_sorted([len(request.args[0]) for request in requests], self.batch_size):
                for i, score in zip(indices, self._weigh([requests[i] for i in indices], pixels_of), strict=True):
                    scores[i] = score
                    text = self._continuation(*requests[i].args)
                    self.cache_hook.add_partial("loglikelihood", (requests[i].args[0], text), score)
                bar.update(len(indices))
        return scores

    def _weigh(self, requests: Sequence[Any], pixels_of: PixelReader) -> list[tuple[float, bool]]:
        """As `loglikelihood`, in one batch: a document's choices share what comes before them."""
        pixels: dict[Hashable, torch.Tensor] = {}
        asked: dict[tuple[str, tuple[Hashable, ...]], list[int]] = {}
        for place, request in enumerate(requests):
            prompt = self._prompt(*request.args)
            keyed = [(picture_key(picture), picture) for picture in prompt.pictures()]
            for key, picture in keyed:
                if key not in pixels:
                    pixels[key] = pixels_of(picture)
            asked.setdefault((prompt.context, tuple(key for key, _ in keyed)), []).append(place)
        answers = [self._continuation(*request.args).strip() for request in requests]
        scored = responder_of(self._model, self.processor).score_choices(
            [context for context, _ in asked],
            [[answers[place] for place in places] for places in asked.values()],
            [[pixels[key] for key in keys] for _, keys in asked],
        )
        found: dict[int, ScoredChoice] = {}
        for places, choices in zip(asked.values(), scored, strict=True):
            found |= dict(zip(places, choices, strict=True))
        return [(-found[place].log_likelihood, found[place].greedy) for place in range(len(requests))]

    def _continuation(self, _: str, answer: Any, __: Any, doc_id: int, task: str, split: str) -> str:
        return answer if isinstance(answer, str) else str(answer(Document(self.task_dict, doc_id, task, split).fields))

    def _prompt(self, context: str, _: Any, doc_to_visual: Any, doc_id: int, task: str, split: str) -> Prompt:
        document = Document(self.task_dict, doc_id, task, split)
        return document.ask(context, doc_to_visual(document.fields))

    def _rounds(self, requests: Sequence[Any], decoding: GenerationOptions) -> list[list[str]]:
        all_answers: list[list[str]] = [[] for _ in requests]
        info: list[Any] = [None] * len(requests)
        documents = [Document(self.task_dict, *request.args[4:]) for request in requests]
        going = {
            i: documents[i].ask(request.args[0], request.args[2](documents[i].fields))
            for i, request in enumerate(requests)
        }
        number = 0
        while going:
            for i, text in zip(going, self._answer(list(going.values()), decoding), strict=True):
                all_answers[i] = [*all_answers[i], text]
            number += 1
            for i in list(going):
                visuals, context, finished, answers, info[i] = requests[i].args[3](
                    documents[i].fields, previous_output=all_answers[i], round_idx=number, previous_round_info=info[i]
                )
                all_answers[i] = list(answers)
                if finished:
                    del going[i]
                else:
                    going[i] = documents[i].ask(context, visuals)
        return all_answers

    def _answer(self, prompts: Sequence[Prompt], options: GenerationOptions) -> list[str]:
        texts = answer(
            self._model,
            self.processor,
            [prompt.pictures() for prompt in prompts],
            [prompt.context for prompt in prompts],
            batch_size=self.batch_size,
            image_aspect_ratio=self.image_aspect_ratio,
            decoding=options.decoding,
        )
        return [options.cut(text) for text in texts]

    def _progress(self, total: int) -> tqdm:
        return tqdm(total=total, desc="tove_llava", disable=self.rank != 0)


def _own_device() -> str:
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"


def _batch_size(requested: int | str, largest: int | None) -> int:
    if requested == "auto":
        return int(largest or 16)
    if not str(requested).isdecimal() or int(requested) < 1:
        raise ConfigError(f"`batch_size` is `{requested}`; expected a whole number from 1, or `auto`")
    return int(requested)


def _chunks(indices: Sequence[int], size: int) -> list[Sequence[int]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]
