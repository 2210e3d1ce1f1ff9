"""Flags of a policy that stand for settings of its address; light, as `doctor` and `--help` read them."""

from __future__ import annotations

from typing import Annotated

import typer

TopKFlag = Annotated[
    int | None, typer.Option("--top-k", min=0, help="Likeliest tokens that the policy samples from; 0: all.")
]
MinPFlag = Annotated[
    float | None,
    typer.Option("--min-p", min=0.0, max=1.0, help="Share of the likeliest token's probability to sample from."),
]
EffortFlag = Annotated[
    str | None, typer.Option("--reasoning-effort", help="How much the policy thinks, such as low.", show_default=False)
]
TemplateKwargsFlag = Annotated[
    str | None,
    typer.Option(
        "--chat-template-kwargs",
        help='JSON that the policy\'s chat template reads, such as {"enable_thinking": false}.',
        show_default=False,
    ),
]
BodyFlag = Annotated[
    str | None,
    typer.Option("--body", help="JSON of further fields of each request to the policy's server.", show_default=False),
]


def policy_settings(
    top_k: int | None, min_p: float | None, effort: str | None, template_kwargs: str | None, body: str | None
) -> dict[str, str]:
    """Flags of a policy as the settings that its address may hold."""
    told = {
        "top_k": top_k, "min_p": min_p, "reasoning_effort": effort, "chat_template_kwargs": template_kwargs,
        "body": body,
    }  # fmt: skip
    return {name: str(value) for name, value in told.items() if value is not None}
