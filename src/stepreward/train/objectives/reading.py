"""How scores are read off the outputs of a model, as the objective that trains them states it beside its loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Settings = Mapping[str, Any]
"""Hyper-parameters of an objective, its defaults among them."""


def no_names(settings: Settings, outputs: int) -> tuple[str, ...]:
    """Outputs without names of their own."""
    return ()


def first_output(settings: Settings) -> int:
    """The first output is the score where no formula says otherwise."""
    return 0


@dataclass(frozen=True)
class OutputReading:
    """What the outputs of a step are. Without one an objective trains logits of probabilities, of which the first is
    the score."""

    rewards: bool = False
    """They are rewards or values, whose zero and unit are free or come from outcomes, not logits of probabilities."""
    alike: bool = False
    """Each of them estimates how good a step is, and can begin as the score of an earlier model."""
    softmax: bool = False
    """They are logits of one distribution over all outputs."""
    policy: bool = False
    """They are what a language model and values of its states say: see `Readout.policy`."""
    begins: bool = False
    """The second half of them is read where a step begins: see `Readout.begins`."""
    summed: bool = False
    """Their scores are parts of a solution's, which is their sum."""
    columns: int = 0
    """Columns of targets that it reads, one an output; 0 for any number, or for none."""
    names: Callable[[Settings, int], tuple[str, ...]] = no_names
    """Names of the outputs in formulas, out of the settings and their number; none for those of the columns."""
    score: Callable[[Settings], int] = first_output
    """The index of the output that is the score where there is no formula; -1 where none of them is one."""
    formula: Callable[[Settings, Sequence[str]], str] | str = ""
    """Of the score, out of the settings and the names of the outputs, or a text with `{k}` for the name of output k."""

    def formula_of(self, settings: Settings, names: Sequence[str]) -> str:
        """The formula for these settings and names; empty where the score is one of the outputs."""
        return self.formula.format(*names) if isinstance(self.formula, str) else self.formula(settings, names)
