"""The settings of training in rounds: the flags of `stepreward rounds` beside those of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from stepreward.core.catalog import aggregate as aggregates
from stepreward.core.catalog import estimate, loss
from stepreward.core.catalog import keep as filters
from stepreward.core.catalog import search as searches
from stepreward.core.catalog import transform as transforms
from stepreward.core.errors import InputError
from stepreward.core.settings_text import read_settings
from stepreward.core.vocabulary import Count, Flag
from stepreward.label.relabelling import transform_of

PSEUDO = "pseudo-label"
"""Transform of the scores of the last model."""
ROLLED = ("rollouts", "both")
"""Labels for which a policy rolls out."""
BY_MODEL = ("scores", "ranks")
"""Labels that only the last round's model gives."""
MIXED = "mean-with"
"""Transform of what rollouts measured and the scores of the last model."""


@dataclass(frozen=True)
class RoundsSettings:
    """Where the solutions of each round come from, who labels them, and on what every round is measured."""

    held_out: Annotated[Path, Flag("--held-out-data")]
    """Solutions with labels or outcomes that no round learns from, or problems of which some are sampled."""
    labelled: Path | None = None
    """Labelled solutions that every round learns from."""
    solutions: Path | None = None
    """Solutions without labels: from the second round on the last model labels those of which it is sure."""
    problems: Path | None = None
    """Problems with references: every round finds new solutions of them."""
    rounds: Count = 3
    """Models one after the other; a later run of the same folder may have more."""
    seeds: Count = 1
    """Times that all rounds are done, from the training's --seed on; intervals are over them too."""
    label_by: Literal["rollouts", "scores", "both", "outcomes", "ranks"] = "rollouts"
    """Labels of solutions of --problems: rollouts of the policy; scores of the last model where it is sure, from the
    second round on; both, from the second round on the mean of the two; none but the outcomes, for objectives that
    read no others; or ranks, for the same ones: from the second round on the last model's best and worst solution of
    each problem, by --aggregate, count as right and wrong, as in self-rewarding, whatever their outcomes are."""
    search: str = ""
    """Search that finds solutions of --problems with the last model, from the second round on; left out: samples."""
    last_only: bool = False
    """Learn from the solutions of --problems of the last round alone, not from those of all rounds."""
    samples: Count = 4
    """Solutions sampled of each problem in a round."""
    held_out_samples: Count = 8
    """Solutions sampled of each held-out problem."""
    grader: str = "mathematics"
    """Who decides outcomes."""
    temperatures: tuple[float, ...] = ()
    """Temperature of the samples of a round; of several, the one whose samples of --tried problems have the best
    balance score, by outcomes and the last model's scores. May be repeated."""
    tried: Count = 16
    """Problems on which several temperatures are tried."""
    estimator: Annotated[str, Flag(choices=estimate)] = "bisection"
    """How rollouts measure steps: {choices}. One that takes values from a reward model has the last round's."""
    first_estimator: Annotated[str, Flag(choices=estimate)] = "bisection"
    """The same in the first round, where --estimator takes values from a reward model and there is none yet."""
    transform: Annotated[str, Flag(choices=transforms)] = ""
    """Labels of what rollouts measured: {choices}; left out: the one that the estimator declares."""
    keep: Annotated[tuple[str, ...], Flag(choices=filters)] = ()
    """Filter of the solutions of a round: {choices}; may be repeated."""
    settings: Annotated[tuple[str, ...], Flag("--set")] = ()
    """Setting of the objective, the estimator, a transform, a filter or the search as name=value; may be repeated."""
    aggregate: Annotated[str, Flag(choices=aggregates)] = "min"
    """Total of a held-out solution's step scores: {choices}."""
    backbone: str = "builtin:arithmetic"
    """What the training of every round starts from: builtin:arithmetic, a model folder, a hub name, or `scratch`."""
    share_kept: Annotated[float, Flag(low=0.0, high=0.9)] = 0.1
    """Share of the problems of a round that choose its checkpoint; others than the held-out data."""

    def check(self) -> None:
        """Refuses what cannot be done, before anything is.

        Raises:
            InputError: there is nothing to learn from, or nothing that new solutions are for.
            UnknownNameError: there is no such method.
        """
        if self.labelled is None and (self.problems is None or self.label_by in BY_MODEL):
            what = "the first round has nothing to learn from"
            raise InputError(what, remedy="pass --labelled, or --problems with --label-by rollouts or outcomes")
        if self.label_by == "ranks" and self.samples < 2:
            raise InputError("one solution of a problem has no rank", remedy="pass --samples 2 or more")
        if self.rounds > 1 and self.solutions is None and self.problems is None:
            raise InputError("every round would be the first one again", remedy="pass --solutions or --problems")
        if self.search and self.problems is None:
            raise InputError("a search needs problems", remedy="pass --problems, or drop --search")
        grown = self.label_by in ROLLED and "trajectory" not in estimate[self.estimator].data
        if self.search and grown:
            what = f"{self.estimator} grows solutions of its own, and --search {self.search} finds others"
            raise InputError(what, remedy="pass one of them")
        if self.temperatures and (grown or self.search or self.problems is None):
            remedy = "pass --problems, and no --search or tree"
            raise InputError("--temperatures are of samples, and there are none", remedy=remedy)
        if any(one < 0 for one in self.temperatures):
            raise InputError(f"temperatures must not be negative, got {self.temperatures}")
        if self.label_by in ROLLED and "scorer" in estimate[self.first_estimator].asks:
            what = f"the first round has no reward model, which {self.first_estimator} takes values from"
            raise InputError(what, remedy="name another by --first-estimator")
        aggregates[self.aggregate]

    def estimator_of(self, later: bool) -> str:
        """The estimator of a later round, or of the first one."""
        return self.estimator if later or "scorer" not in estimate[self.estimator].asks else self.first_estimator

    def methods(self, objective: str) -> dict[str, Mapping[str, Any]]:
        """The methods that take part, by name, with their hyper-parameters.

        Args:
            objective: of the training.

        Raises:
            InputError: a setting is of the wrong type, or could be of several methods.
            UnknownNameError: there is no such method or setting.
        """
        chosen = [loss[objective]]
        if self.problems is not None:
            if self.label_by in ROLLED:
                named = dict.fromkeys((self.estimator, self.estimator_of(False)))
                chosen += [estimate[name] for name in named]
                rewriting = {one.name: one for one in (transform_of(name, self.transform) for name in named)}
                if self.label_by == "both":
                    rewriting[MIXED] = transforms[MIXED]
                chosen += rewriting.values()
            chosen += [searches[self.search]] if self.search else []
        if self.solutions is not None or self.label_by == "scores":
            chosen.append(transforms[PSEUDO])
        chosen += [filters[name] for name in self.keep]
        if any("others" in one.data for one in chosen):
            raise InputError("a round has no second source of labels", remedy="drop --keep consensus")
        found = read_settings(self.settings, *chosen)
        return {one.name: own for one, own in zip(chosen, found, strict=True)}
