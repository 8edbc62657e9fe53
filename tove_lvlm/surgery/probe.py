"""How good a trained model is with each of several sets of experts, in one pass over the data.

CLIP and every expert run once for each image; only the fusion, the projector and the language model run once for each
set. Loss and score are read off the right answers (teacher forcing), so that nothing is generated: an answer is right
when each of its tokens, the end of sentence included, is the most probable one, and that is when greedy decoding gives
exactly this answer.

Shapes: I images of a batch, N visual tokens, D width, R rows (conversations), T tokens, M labelled tokens, A answers,
V vocabulary.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from ..checkpoints import LoadedCheckpoint
from ..config import UserError
from ..cost import eval_mode
from ..data.conversations import Encoded
from ..inference import Responder, responder_of
from ..inference.responder import AnswerLogits
from ..lvlm.parts import base_model
from ..registry import nearest
from .probe_data import ProbeData
from .probe_items import ProbeItems

Progress = Callable[[int, int], None]
"""Called with (batches done, all batches)."""


@dataclass(frozen=True)
class Quality:
    """How well a model answers with one set of experts. All None and 0 where there is nothing to answer."""

    loss: float | None
    """Mean over all answer tokens, the end of sentence included, of -log p; nats."""
    score: float | None
    """Share of answers that are wholly the arg max."""
    num_answers: int
    num_tokens: int
    """Answer tokens."""

    @classmethod
    def of(cls, sums_4: torch.Tensor) -> "Quality":
        """From the sums (loss, tokens, right answers, answers) of `Probe.score_sets`."""
        loss, num_tokens, num_right, num_answers = sums_4.tolist()
        if not num_answers:
            return cls(None, None, 0, 0)
        return cls(loss / num_tokens, num_right / num_answers, int(num_answers), int(num_tokens))


@dataclass(frozen=True, kw_only=True)
class EncodedBatch:
    """One batch of images after everything frozen has run."""

    t_clip_IND: torch.Tensor
    """CLIP's tokens; for a model without a ToVE tower the projected ones."""
    grids: dict[str, torch.Tensor]
    """Each attached expert's grid."""
    rows: list[Encoded]
    """The conversations about these images, as the model reads them."""
    image_of: list[int]
    """For each row, its image in this batch."""
    broken: dict[str, str]
    """What of this batch was left out: name -> reason."""


class Probe:
    """Measures a checkpoint with any of its experts away; the model is not changed.

    Args:
        loaded: What `open_checkpoint` gave. A tower alone has no language model and so no quality.
        data: What to measure on.
        batch_size: Images that run together, and conversations that do.
        device: Where to move the model to; None leaves it where it is.
        num_workers: Processes that read images; 0 reads in this one.
        mean_terms: Attached expert -> (D,), where the model is: what stands in its place where it is away and another
            is not.

    Attributes:
        broken: Name -> reason of what was left out so far.
    """

    def __init__(
        self,
        loaded: LoadedCheckpoint,
        data: ProbeData,
        batch_size: int = 32,
        device: str | torch.device | None = None,
        num_workers: int = 0,
        mean_terms: Mapping[str, torch.Tensor] | None = None,
    ):
        model = loaded.model if device is None else loaded.model.to(device)
        self.data, self.batch_size, self.num_workers = data, batch_size, num_workers
        self.model, self.tower = model, loaded.tower
        self.broken = dict(data.bad)
        self.mean_terms = dict(mean_terms or {})
        has_language_model = loaded.checkpoint.has_language_model
        self._responder = responder_of(model, loaded.processor) if has_language_model else None
        encode = self._responder.encode_conversation if self._responder and data.records is not None else None
        self._items = ProbeItems(data, loaded.image_processor, loaded.image_aspect_ratio, encode)

    @property
    def has_quality(self) -> bool:
        """Whether there are answers to judge and a language model that gives them."""
        return self._responder is not None and self.data.records is not None

    @property
    def num_batches(self) -> int:
        """Batches of the data; their composition depends on `batch_size` alone."""
        return -(-len(self._items) // self.batch_size)

    def quality(self, sets: Sequence[Collection[str]], progress: Progress | None = None) -> list[Quality]:
        """Loss and score with each set of experts.

        Args:
            sets: Names of the experts that take part, attached ones; the empty set is CLIP alone.
            progress: Told after each batch.

        Raises:
            DataError: Too many samples or images are broken.
            UserError: A set names an expert that is not attached.
        """
        sums_S4 = torch.zeros(len(sets), 4, dtype=torch.float64)
        with eval_mode(self.model):
            for done, batch in enumerate(self.encode(range(self.num_batches)), start=1):
                sums_S4 += self.score_sets(batch, sets)
                if progress is not None:
                    progress(done, self.num_batches)
        return [Quality.of(sums_4) for sums_4 in sums_S4]

    @torch.no_grad()
    def encode(self, numbers: Sequence[int]) -> Iterator[EncodedBatch]:
        """Run everything frozen on the batches of these numbers.

        Raises:
            DataError: Too many samples or images are broken.
        """
        last = len(self._items)
        slices = [list(range(k * self.batch_size, min((k + 1) * self.batch_size, last))) for k in numbers]
        loader = DataLoader(self._items, batch_sampler=slices, collate_fn=list, num_workers=self.num_workers)
        for items in loader:
            broken = {name: reason for item in items for name, reason in item.broken.items()}
            self.broken.update(broken)
            self.data.check_bad(self.broken)
            items = [item for item in items if item.pixels_3HW is not None]
            t_clip_IND, grids = self._freeze([item.pixels_3HW for item in items])
            yield EncodedBatch(
                t_clip_IND=t_clip_IND,
                grids=grids,
                rows=[row for item in items for row in item.rows],
                image_of=[image for image, item in enumerate(items) for _ in item.rows],
                broken=broken,
            )

    @torch.no_grad()
    def score_sets(self, encoded: EncodedBatch, sets: Sequence[Collection[str]]) -> torch.Tensor:
        """Sums over a batch's answers.

        Args:
            encoded: The batch.
            sets: As for `quality`.

        Returns:
            (sets, 4) float64 on the CPU: loss, tokens, right answers, answers.

        Raises:
            UserError: A set names an expert that is not attached.
        """
        sums_S4 = torch.zeros(len(sets), 4, dtype=torch.float64)
        for names in sets:
            self._check(names)
        if not encoded.rows or not self.has_quality:
            return sums_S4
        chunks = self._chunks(encoded)
        for index, names in enumerate(sets):
            visual_IND = self._visual_tokens(encoded, names)
            for chunk in chunks:
                visual_RND = visual_IND[[encoded.image_of[row] for row in chunk]]
                sums_S4[index] += sums_of(
                    self._language.answer_logits([encoded.rows[row] for row in chunk], visual_RND)
                )
        return sums_S4

    def loss_gradient(self, encoded: EncodedBatch) -> tuple[torch.Tensor, int]:
        """Gradient of a batch's answers' loss, summed, at the tokens that projector and language model are given.

        Args:
            encoded: The batch, with rows.

        Returns:
            (I, N, D) of t_fuse with every attached expert, float32, and the number of answer tokens.
        """
        if self.tower is None:
            raise ValueError("a model without a ToVE tower has no t_fuse")
        weight_I = torch.ones(len(encoded.t_clip_IND), device=encoded.t_clip_IND.device)
        with torch.no_grad():
            fused_IND = self.tower.tove_fusion(encoded.t_clip_IND, encoded.grids, weight_I).t_fuse_BND
        gradient_IND, num_labels = torch.zeros_like(fused_IND, dtype=torch.float32), 0
        for chunk in self._chunks(encoded):
            with torch.enable_grad():
                images = [encoded.image_of[row] for row in chunk]
                fused_RND = fused_IND[images].requires_grad_()
                visual_RND = self._language.visual_tokens(fused_RND)
                answers = self._language.answer_logits([encoded.rows[row] for row in chunk], visual_RND)
                loss = F.cross_entropy(answers.logits_MV.float(), answers.targets_M, reduction="sum")
                (gradient_RND,) = torch.autograd.grad(loss, fused_RND)
            gradient_IND.index_add_(0, torch.tensor(images, device=gradient_IND.device), gradient_RND.float())
            num_labels += len(answers.targets_M)
        return gradient_IND, num_labels

    def _chunks(self, encoded: EncodedBatch) -> list[list[int]]:
        """The batch's rows, those of like length together: they waste no padding."""
        order = sorted(range(len(encoded.rows)), key=lambda row: len(encoded.rows[row].input_ids))
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]

    def _check(self, names: Collection[str]) -> None:
        attached = self.tower.attached_names if self.tower is not None else []
        for name in names:
            if name not in attached:
                raise UserError(f"the model has no attached expert `{name}`; {nearest(name, attached)}")

    @property
    def _language(self) -> Responder:
        if self._responder is None:
            raise ValueError("a tower alone has no language model to answer with")
        return self._responder

    def _freeze(self, pixels: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        like = next(self.model.parameters() if self.tower is None else self.tower.parameters())
        if not pixels:
            return like.new_zeros(0), {}
        pixels_I3HW = torch.stack(pixels).to(like)
        if self.tower is None:
            return torch.stack(list(base_model(self.model).get_image_features(pixels_I3HW).pooler_output)), {}
        frozen = self.tower.encode_frozen(pixels_I3HW)
        return frozen.t_clip_BND, frozen.grids

    def _visual_tokens(self, encoded: EncodedBatch, names: Collection[str]) -> torch.Tensor:
        if self.tower is None:
            return encoded.t_clip_IND
        grids = {name: grid for name, grid in encoded.grids.items() if name in names}
        weight_I = torch.ones(len(encoded.t_clip_IND), device=encoded.t_clip_IND.device)
        means = {"mean_terms": self.mean_terms} if self.mean_terms else {}  # which concatenating towers do not have
        fused = self.tower.tove_fusion(encoded.t_clip_IND, grids, weight_I, **means)
        return self._language.visual_tokens(fused.t_fuse_BND)


def sums_of(answers: AnswerLogits) -> torch.Tensor:
    """(4,) float64 on the CPU: loss, tokens, right answers, answers.

    Args:
        answers: An answer is an unbroken run of labels: the words between two answers have none.
    """
    logits_MV, targets_M, labelled_RT = answers
    loss = F.cross_entropy(logits_MV, targets_M, reduction="none").double().sum()
    starts_RT = labelled_RT & ~F.pad(labelled_RT, (1, 0))[:, :-1]
    answer_M = starts_RT.flatten().cumsum(0)[labelled_RT.flatten()] - 1
    num_answers = int(starts_RT.sum())
    wrong_M = (logits_MV.argmax(-1) != targets_M).float()
    wrong_A = torch.zeros(num_answers, device=logits_MV.device).index_add(0, answer_M, wrong_M)
    num_right = int((wrong_A == 0).sum())
    return torch.tensor([float(loss), len(targets_M), num_right, num_answers], dtype=torch.float64)
