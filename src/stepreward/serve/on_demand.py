"""What serves the tokens of a model in this process, imported at its first use: a server without one loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepreward.core.on_demand import on_demand

if TYPE_CHECKING:
    from stepreward.score.remote.token_outputs import TokenOutputs as TokenOutputs
    from stepreward.serve.scoring.token_routes import token_routes as token_routes

if not TYPE_CHECKING:  # a type checker then refuses names that are not above
    __getattr__ = on_demand(__file__)
