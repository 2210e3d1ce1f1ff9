"""The policy whose model runs in this process, imported at its first use: importing this module loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepreward.core.on_demand import on_demand

if TYPE_CHECKING:
    from stepreward.policies.local import LocalPolicy as LocalPolicy

if not TYPE_CHECKING:  # a type checker then refuses names that are not above
    __getattr__ = on_demand(__file__)
