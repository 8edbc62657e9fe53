"""What the page asks the process with the models, and what that answers. Plain data that can be pickled."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..viz.gates import TokenGates


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A question about a picture. Answered by `Text` after each token, then by `Answer`."""

    model: int
    """Number of the model, in the order in which they were given."""
    picture: Path
    question: str
    earlier: tuple[tuple[str, str], ...] = ()
    """Questions and answers that came before in this conversation."""
    detached: tuple[str, ...] = ()
    """Experts that take no part."""
    max_new_tokens: int = 64


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the tower makes of a picture. Answered by `Seen`."""

    model: int
    picture: Path
    detached: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MeasureUsage:
    """The figures of `tove usage` over some pictures. Answered by `Done` after each batch, then by `Usage`."""

    model: int
    folder: Path
    """Of pictures."""
    batch_size: int = 8


Request = Ask | Look | MeasureUsage


@dataclass(frozen=True, kw_only=True)
class Text:
    """The answer so far."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A whole answer, and what it took."""

    text: str
    tower_ms: float
    """Time in the vision tower."""
    first_token_ms: float
    """From the pixels to the first token: the tower, and the language model over the prompt."""
    tokens_per_second: float | None
    """After the first token; None where the answer has one token or none."""
    memory_bytes: int
    """Of the weights that take part: those of detached experts do not."""
    cancelled: bool = False

    @property
    def prompt_ms(self) -> float:
        """Time from the tower's last layer to the first token."""
        return self.first_token_ms - self.tower_ms


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a tower makes of a picture."""

    gates: TokenGates | None
    """None where there is no gate."""
    why: str = ""
    """Why there is none."""
    tower_ms: float
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class Done:
    """How far a long request is."""

    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What `surgery.usage.measure_usage` gave; None where the request was cancelled."""

    report: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The request could not be answered."""

    message: str
    """One sentence for who asked."""


Event = Text | Answer | Seen | Done | Usage | Failed


@dataclass(frozen=True, kw_only=True)
class ModelAbout:
    """What the page says of a model."""

    folder: Path
    name: str
    experts: tuple[str, ...] = ()
    """All of its tower's, attached or not; none of a plain encoder."""
    detached: tuple[str, ...] = ()
    """Those that are detached in its folder."""
    keeps_conversation: bool = True
    """Whether a question is read with what was said before."""
    about: str = ""
    """One line: parameters, dtype, device."""

    @property
    def switches(self) -> tuple[str, ...]:
        """The experts that can be switched off and on: those whose weights are in the model's folder."""
        return tuple(name for name in self.experts if name not in self.detached)
