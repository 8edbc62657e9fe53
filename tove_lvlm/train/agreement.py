"""What the ranks tell each other in every optimizer step: is a loss no number, was any of them asked to stop.

Nothing waits for the device in the middle of a step: the flags are set there, reduced behind the last forward pass,
copied to the host while the backward pass runs, and read at the step's end, before anything is written.

See docs/design.md, "Training".
"""

from collections.abc import Sequence

import torch

from .. import dist
from .guards import NonFiniteLoss


class Agreement:
    """The losses of one optimizer step, and what is known of them on all ranks."""

    def __init__(self) -> None:
        self._losses: list[tuple[torch.Tensor, list[str]]] = []
        self._flags: HostCopy | None = None

    def add(self, loss: torch.Tensor, sample_ids: Sequence[str]) -> None:
        """Count a micro-batch.

        Args:
            loss: Scalar.
            sample_ids: Its samples, for the message.
        """
        self._losses.append((loss.detach(), list(sample_ids)))

    def send(self, signum: int) -> None:
        """After a step's last forward pass; one small collective, every rank must call.

        Args:
            signum: The signal that asked this rank to stop, 0 for none.
        """
        losses = torch.stack([loss for loss, _ in self._losses])
        flags = losses.new_full((2,), float(signum), dtype=torch.float32)
        flags[0] = (~torch.isfinite(losses)).any()
        self._flags = HostCopy(dist.all_reduce_sum(flags))

    def receive(self, step: int) -> bool:
        """At a step's end, on every rank: whether any rank was asked to stop. The next step starts anew.

        Args:
            step: For the message.

        Raises:
            NonFiniteLoss: A loss of any rank is no number.
        """
        flags, losses, self._flags, self._losses = self._flags, self._losses, None, []
        if flags is None:
            return False
        any_bad, any_asked = flags.read()
        if any_bad:
            for loss, sample_ids in losses:
                if not torch.isfinite(loss):
                    raise NonFiniteLoss(f"the loss is {loss.item()}", step, sample_ids)
            raise NonFiniteLoss("another rank's loss is not a finite number", step, losses[-1][1])
        return bool(any_asked)


class HostCopy:
    """Numbers on their way from the device.

    Args:
        values: 1-D; on CUDA they are copied behind the work that is queued, and nobody waits yet.
    """

    def __init__(self, values: torch.Tensor):
        self._event: torch.cuda.Event | None = None
        if not values.is_cuda:
            self._values = values.clone()
            return
        self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        self._values.copy_(values, non_blocking=True)
        self._event = torch.cuda.Event()
        self._event.record()

    def read(self) -> list[float]:
        """The numbers, once they have come."""
        if self._event is not None:
            self._event.synchronize()
        return self._values.tolist()
