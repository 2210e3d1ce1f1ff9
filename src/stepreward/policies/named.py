"""Policies by name: a model on this machine, an engine in this process, or a server by its address."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.http.addresses import split_address, without_secrets
from stepreward.core.http.server import Server
from stepreward.core.optional import VLLM
from stepreward.core.runtime.flows import Policy
from stepreward.core.settings_text import json_object
from stepreward.policies import on_demand
from stepreward.policies.crew import crew_at
from stepreward.policies.http import HttpPolicy
from stepreward.policies.model_sources import resolve
from stepreward.policies.vllm_policy import VllmPolicy


def _name_pairs(text: str) -> dict[str, str]:
    """`max_tokens:max_completion_tokens,seed:` as a table."""
    pairs = [pair.partition(":") for pair in text.split(",")]
    if not all(name and colon for name, colon, _ in pairs):
        raise ValueError(text)
    return {name: other for name, _, other in pairs}


def _unescaped(text: str) -> str:
    """Text as typed in a shell, where a line break is two characters."""
    breaks = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
    return re.sub(r"\\([ntr\\])", lambda match: breaks[match[1]], text)


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


Kinds = Mapping[str, Callable[[str], Any]]
"""Settings of an address, each with the function that reads its text."""
_SAMPLING: Kinds = {
    "separator": _unescaped, "template": _unescaped, "temperature": float, "top_p": float, "max_tokens": int,
}  # fmt: skip
"""Settings of every policy."""
_BODY: Kinds = {"top_k": int, "min_p": float, "reasoning_effort": str, "chat_template_kwargs": json_object}
"""Fields of a request that some servers do not know: sent only where they are given."""
_SERVER: Kinds = {"timeout": float, "longest": float, "retries": int, "patience": float, "place": str}
"""Limits and retries of requests, which do not change answers and are not part of the policy's name, and what stands in
it for the address."""
_HTTP_SETTINGS: Kinds = {
    **_SAMPLING, **_BODY, **_SERVER, "endpoint": str, "prefill": str, "logprobs": _boolean, "running_usage": _boolean,
    "fields": _name_pairs, "body": json_object,
}  # fmt: skip
_CHAT: Kinds = {"reasoning_effort": str, "chat_template_kwargs": json_object}
_LOCAL_SETTINGS: Kinds = {**_SAMPLING, **_CHAT, "top_k": int, "min_p": float, "body": json_object}
_VLLM_SETTINGS: Kinds = {**_LOCAL_SETTINGS, "logprobs": _boolean, "engine": json_object}
_FORMS = {
    _name_pairs: "FIELD:OTHER pairs with commas between, or FIELD: to leave one out", json_object: "a JSON object",
    _boolean: "true or false", int: "a whole number", float: "a number",
}  # fmt: skip
CREW = "crew:"
"""What the address of several agents begins with."""
_CHOICES = {"endpoint": ("chat", "completions"), "prefill": ("continue", "plain")}


def policy_at(
    source: str, *, concurrency: int = 16, raw: bool = False, dtype: str = "", patience: float | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Policy:  # fmt: skip
    """A policy by name: a model folder, a hub name, a built-in one, `vllm:NAME`, or `URL#MODEL` for a server.

    Several servers of one model are `URL#MODEL,URL#MODEL`. Several agents over one trace are `crew:FILE.json` or
    `crew:AGENT=POLICY;AGENT=POLICY` (`policies.crew`).

    Settings may follow: `URL#MODEL?endpoint=completions&temperature=0.7`, `NAME?separator=\\n\\n`,
    `vllm:NAME?engine={"dtype": "float32"}` for arguments of the engine. `body={...}`, or
    `top_k`, `min_p`, `reasoning_effort` and `chat_template_kwargs={...}` by themselves, go with each request; where the
    model is loaded here they reach its chat template and its sampling. A server's API key is read from
    STEPREWARD_API_KEY, or else OPENAI_API_KEY.

    Args:
        source: the name.
        concurrency: most open requests to each server.
        raw: send prompts as bare text, without a chat template.
        dtype: of a model loaded here; its own choice where empty.
        patience: seconds that a server which answered before is waited for, where its address does not say; None is
            `Server`'s default, which rides out a restart.
        settings: more settings, as texts, such as flags give them; the same as in the address.

    Raises:
        InputError: an address without a model, or a setting that does not fit or is given twice.
        UnknownNameError: there is no such setting.
        ModelError: the model cannot be loaded.
    """
    if source.startswith(CREW):
        if settings:
            what = f"{next(iter(settings))} is a setting of one policy, and a crew has several"
            raise InputError(what, remedy="write it into the addresses of its agents")
        how: dict[str, Any] = {"concurrency": concurrency, "raw": raw, "dtype": dtype, "patience": patience}

        def member(address: str) -> Policy:
            if address.startswith(CREW):
                raise InputError(f"{address}: an agent of a crew is a crew", remedy="name its agents in one crew")
            return policy_at(address, **how)

        return crew_at(source.removeprefix(CREW), member)
    bare: dict[str, Any] = {"template": "{prompt}"} if raw else {}
    if not source.startswith(("http://", "https://")):
        return _loaded(source, bare, dtype, settings)
    url, model, query = split_address(source)
    if not model:
        shown = without_secrets(f"{source}#").rstrip("#")
        raise InputError(f"{shown} names no model", remedy=f"pass {shown.rstrip('/')}#MODEL")
    key = os.environ.get("STEPREWARD_API_KEY") or os.environ.get("OPENAI_API_KEY", "")
    given = _settings(query, settings, "policy in a server", _HTTP_SETTINGS)
    body = given.pop("body", {}) | {name: given.pop(name) for name in _BODY if name in given}
    waits: dict[str, Any] = {} if patience is None else {"patience": patience}
    waits |= {name: given.pop(name) for name in _SERVER if name in given}
    own = given | ({**bare, "endpoint": "completions"} if raw else {})
    try:
        return HttpPolicy(Server(url, model, key, concurrency=concurrency, **waits), body=body, **own)
    except ValueError as error:
        raise InputError(str(error), source=without_secrets(source)) from error


def _loaded(source: str, bare: dict[str, Any], dtype: str, settings: Mapping[str, str]) -> Policy:
    """A policy whose model runs in this process."""
    name, query = (source, "") if Path(source).exists() else source.partition("?")[::2]
    engine = name.startswith(VLLM)
    given = _settings(query, settings, "policy on this machine", _VLLM_SETTINGS if engine else _LOCAL_SETTINGS)
    body = given.pop("body", {}) | {name: given.pop(name) for name in _BODY if name in given}
    own = given | {name: body.pop(name) for name in ("top_k", "min_p") if name in body}
    chat = {**body.pop("chat_template_kwargs", {}), **{name: body.pop(name) for name in _CHAT if name in body}}
    if body:
        raise InputError(f"{next(iter(body))} cannot be set for a model on this machine", remedy="take a server")
    own |= {**bare, **({"chat": chat} if chat else {})}
    if engine:
        return VllmPolicy.load(name, **own)
    resolve(name)  # Refuses a missing model before torch is loaded.
    local: Policy = on_demand.LocalPolicy.load(name, dtype=dtype or "auto", **own)
    return local


def _settings(query: str, more: Mapping[str, str], what: str, kinds: Kinds) -> dict[str, Any]:
    """Settings of an address and of flags in the types that a policy takes."""
    pairs = parse_qsl(query, keep_blank_values=True)
    names = [name for name, _ in pairs]
    if twice := next((name for name in [*names, *more] if [*names, *more].count(name) > 1), ""):
        raise InputError(f"{twice} is given twice", remedy="give it once, in the address or as a flag")
    return {name: _setting(name, text, what, kinds) for name, text in [*pairs, *more.items()]}


def _setting(name: str, text: str, what: str, kinds: Kinds) -> Any:
    if name not in kinds:
        raise UnknownNameError(f"setting of a {what}", name, kinds)
    try:
        value = kinds[name](text)
    except (KeyError, ValueError, RecursionError):
        raise InputError(f"{name} must be {_FORMS[kinds[name]]}, got {text!r}") from None
    if text not in _CHOICES.get(name, (text,)):
        raise InputError(f"{name} must be one of {', '.join(_CHOICES[name])}, got {text!r}")
    return value
