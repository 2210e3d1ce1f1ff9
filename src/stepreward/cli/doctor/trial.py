"""What works on this machine, found out by doing it once: a library that is installed may be broken, or too new."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stepreward.cli.doctor.finding import Finding
from stepreward.cli.doctor.packages import diagnosis, missing
from stepreward.core.optional import optional


@dataclass(frozen=True)
class Trial:
    """Something done once, small, whose outcome is known."""

    what: str
    module: str
    """That does it, under `stepreward`; what it imports is on trial too."""
    function: str
    """Of the module; without one, importing is all."""
    extras: tuple[str, ...] = ()
    """That bring what it needs; the first one is told where something is missing."""


TRIALS: Sequence[Trial] = (
    Trial("stores", "cli.doctor.trials.plain", "stores"),
    Trial("grades", "cli.doctor.trials.plain", "grades", ("math",)),
    Trial("rules", "cli.doctor.trials.plain", "rules", ("rules",)),
    Trial("generates", "cli.doctor.trials.models", "generates", ("models",)),
    Trial("scores", "cli.doctor.trials.models", "scores", ("models",)),
    Trial("trains", "cli.doctor.trials.models", "trains", ("models",)),
    Trial("credits in TRL", "connect.trl", "", ("trl", "models")),
    Trial("serves", "cli.doctor.trials.serving", "serves", ("serve",)),
)


def trial_findings() -> Iterator[Finding]:
    """What works here, each as it is found out."""
    return map(_tried, TRIALS)


def _tried(trial: Trial) -> Finding:
    gone = [one.name for extra in trial.extras for one in missing(extra)]
    if gone:
        says = f"needs {', '.join(gone)}: pip install 'stepreward[{trial.extras[0]}]'"
        return Finding(trial.what, False, says, needed=False)
    try:
        with warnings.catch_warnings(action="ignore"):
            module = optional(f"stepreward.{trial.module}")
            says = getattr(module, trial.function)() if trial.function else "TRL's trainer takes step credit"
    except Exception as error:
        # The boundary to other programs: a broken library raises anything, and all of it is a finding.
        return Finding(trial.what, False, diagnosis(error, trial.extras))
    return Finding(trial.what, True, says)
