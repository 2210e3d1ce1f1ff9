"""What a row of the table of public checkpoints holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stepreward.score.encode.record import EncoderRecord

Head = Literal["weights", "tokens", "mean", "none"]
"""Where labels come from: a head among the weights, rows of the language-model head, the mean of all its rows, or
log-probabilities."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A public checkpoint: its names, its encoder record, its head and where all that is stated."""

    names: tuple[str, ...]
    """Hub names that share the row; a recipe for any model has one name without a slash."""
    record: EncoderRecord
    source: str
    """Where the recipe was read."""
    head: Head = "weights"
    architectures: tuple[str, ...] = ()
    """`architectures` of its configuration, where they say more than the family."""
    reference: str = ""
    """Hub name of the reference model of an implicit score."""
    notes: str = ""
    """Contradictions between sources, and how they were settled."""
    golden: tuple[float, ...] = ()
    """Step scores that its authors print for their own example."""

    @property
    def name(self) -> str:
        """The first of its names."""
        return self.names[0]

    @property
    def generic(self) -> bool:
        """Whether it is a recipe for any model rather than a checkpoint."""
        return "/" not in self.name
