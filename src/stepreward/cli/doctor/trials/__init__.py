"""What `stepreward doctor` does once, small, with a known outcome. Each returns what it says where all is well.

A trial is imported when it is tried: what it imports is on trial too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepreward.core.on_demand import on_demand

if TYPE_CHECKING:
    from stepreward.cli.doctor.trials.models import generates as generates
    from stepreward.cli.doctor.trials.models import scores as scores
    from stepreward.cli.doctor.trials.models import trains as trains
    from stepreward.cli.doctor.trials.plain import grades as grades
    from stepreward.cli.doctor.trials.plain import rules as rules
    from stepreward.cli.doctor.trials.plain import runs_programs as runs_programs
    from stepreward.cli.doctor.trials.plain import stores as stores
    from stepreward.cli.doctor.trials.rl_training import credits_steps as credits_steps
    from stepreward.cli.doctor.trials.serving import serves as serves

if not TYPE_CHECKING:  # a type checker then refuses names that are not above
    __getattr__ = on_demand(__file__)
