"""The policies of a command: flags that name them and set how they sample, and what to say of answers that were cut."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any
from urllib.parse import parse_qsl

from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.http.addresses import lasting
from stepreward.core.runtime.agent import Agent
from stepreward.core.runtime.flows import Judge, Policy, Scorer, token_limit
from stepreward.core.runtime.spending import Bill
from stepreward.core.vocabulary import Flag
from stepreward.environments.by_address import environment_at
from stepreward.policies.crew import helped, placed
from stepreward.policies.expert import WithExpert
from stepreward.policies.http import HttpPolicy
from stepreward.policies.named import policy_at
from stepreward.score.judges.pairwise import PolicyJudge, ScorerJudge

OWN_SCORE = "score"
"""Name of the judge that compares by the reward model's own totals."""


@dataclass(frozen=True)
class PolicyFlags:
    """A policy by name, and settings that its address may hold as well."""

    policy: str = "builtin:arithmetic"
    """Policy: builtin:arithmetic, a model folder, a hub name, vllm:NAME, or URL#MODEL of a server; URL,URL#MODEL of
    several; crew:FILE.json for several agents over one trace."""
    top_k: Annotated[int | None, Flag(low=0)] = None
    """Likeliest tokens that the policy samples from; 0: all."""
    min_p: Annotated[float | None, Flag(low=0.0, high=1.0)] = None
    """Share of the likeliest token's probability to sample from."""
    reasoning_effort: str | None = None
    """How much the policy thinks, such as low."""
    chat_template_kwargs: str | None = None
    """JSON that the policy's chat template reads, such as {"enable_thinking": false}."""
    body: str | None = None
    """JSON of further fields of each request to the policy's server."""

    @property
    def settings(self) -> dict[str, str]:
        """What the flags set, as texts such as an address holds."""
        names = ("top_k", "min_p", "reasoning_effort", "chat_template_kwargs", "body")
        return {name: str(value) for name in names if (value := getattr(self, name)) is not None}

    @property
    def lasting(self) -> PolicyFlags:
        """The same for plans of folders: servers may have other hosts in the next run, as `place=` says."""
        return replace(self, policy=lasting(self.policy))

    def load(self, expert: str = "", **how: Any) -> Policy:
        """The policy, with the expert that it may call, if one is named.

        Args:
            expert: a policy's name; its settings are part of its address.
            how: keywords of `policy_at` for both.
        """
        writer = policy_at(self.policy, settings=self.settings, **how)
        return helped(writer, policy_at(expert, **how)) if expert else writer


@dataclass(frozen=True)
class AgentFlags(PolicyFlags):
    """A policy by name, and the environment that it acts in, if any."""

    environment: str = ""
    """Where the policy acts, which makes it an agent: a name that `stepreward methods environment` lists, settings
    behind it as in gymnasium?env=FrozenLake-v1; openenv:http://HOST:PORT is a server of OpenEnv."""

    def load(self, expert: str = "", **how: Any) -> Policy:
        """The policy or agent, with the expert that it may call; see `PolicyFlags.load`."""
        writer = super().load(expert, **how)
        return placed(writer, environment_at(self.environment, partial(policy_at, **how)) if self.environment else None)


@dataclass(frozen=True)
class HelperFlags:
    """Who helps a search beside policy and reward model."""

    expert: str = ""
    """Stronger policy, as for --policy, which searches such as intervention call at chosen steps."""
    judge: str = ""
    """Who compares two solutions, for knockout and elo: a policy as for --policy, or score for the reward model's own
    totals, score?aggregate=last for others than the least."""

    def load_judge(self, scorer: Scorer | None, *, concurrency: int = 16) -> Judge | None:
        """The judge: a policy whose verdicts are read, the scorer's totals, or None where none is named.

        Args:
            scorer: the reward model, if there is one; where several threads share it, one that may be shared.
            concurrency: most open requests to a server at a time.

        Raises:
            InputError: `score` without a reward model, or a policy's setting that does not fit.
            UnknownNameError: there is no such aggregate or setting.
            ModelError: the policy cannot be loaded.
        """
        if not self.judge:
            return None
        name, _, query = self.judge.partition("?")
        if name != OWN_SCORE:
            # Judges are greedy, unless the address sets a temperature.
            temperature = None if "temperature=" in query else 0.0
            return PolicyJudge(policy_at(self.judge, concurrency=concurrency), temperature=temperature)
        if scorer is None:
            raise InputError("--judge score compares by a reward model", remedy="pass --model, or a policy to judge")
        settings = dict(parse_qsl(query, keep_blank_values=True))
        for setting in settings:
            if setting != "aggregate":
                raise UnknownNameError("setting of the judge score", setting, ["aggregate"])
        return ScorerJudge(scorer, **settings)


def cut_note(bill: Bill, policy: Policy | None) -> str:
    """How many samples were cut and why, and how many have no answer behind their thinking; "" where none.

    Of a policy that is None, since workers have it, only the number of samples that were cut is known.
    A limit that is too small looks like a policy that knows nothing.
    """
    writer = policy
    while isinstance(writer, Agent | WithExpert):
        writer = writer.policy
    most = token_limit(writer)
    limit = "the policy's limit" if most is None else f"max_tokens={most}"
    thoughts = writer.usage.only_thoughts if isinstance(writer, HttpPolicy) else 0
    what = f"{thoughts:,} wrote nothing but thinking: raise max_tokens, or lower reasoning_effort"
    if not bill.cut:
        return f"of {bill.drawn:,} samples {what}" if thoughts else ""
    note = f"{bill.cut:,} of {bill.drawn:,} samples reached {limit}, or the end of the context, and are cut"
    if isinstance(writer, HttpPolicy) and writer.usage.filtered:
        note += f"; a filter of the server cut {writer.usage.filtered:,} of them"
    if thoughts:
        note += f"; {what}"
    return note
