"""What works on this machine, found out by doing it once: a library that is installed may be broken, or too new."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stepreward.cli.doctor import trials
from stepreward.cli.doctor.finding import Finding
from stepreward.cli.doctor.packages import diagnosis, missing


@dataclass(frozen=True)
class Trial:
    """Something done once, small, whose outcome is known."""

    what: str
    function: str
    """Of `cli.doctor.trials`, which does it."""
    extras: tuple[str, ...] = ()
    """Extras that bring what it needs; the error names the first one where a package is missing."""
    needed: bool = True
    """Whether it is an error where it fails."""


TRIALS: Sequence[Trial] = (
    Trial("stores", "stores"),
    Trial("grades", "grades", ("math",)),
    Trial("rules", "rules", ("rules",)),
    Trial("runs programs", "runs_programs", needed=False),
    Trial("generates", "generates", ("models",)),
    Trial("scores", "scores", ("models",)),
    Trial("trains", "trains", ("models",)),
    Trial("credits in TRL", "credits_steps", ("trl", "models")),
    Trial("serves", "serves", ("serve",)),
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
            says = getattr(trials, trial.function)()
    except Exception as error:
        # The boundary to other programs: a broken library raises anything, and all of it is a finding.
        return Finding(trial.what, False, diagnosis(error, trial.extras), trial.needed)
    return Finding(trial.what, True, says)
