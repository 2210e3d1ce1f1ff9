"""Policies by name: a model on this machine, an engine in this process, or a server by its address."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from stepreward.core.engines import VLLM, optional
from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.flows import Policy
from stepreward.core.servers import Server, without_secrets
from stepreward.policies.http import HttpPolicy
from stepreward.policies.vllm import VllmPolicy


def _renamed(text: str) -> dict[str, str]:
    """`max_tokens:max_completion_tokens,seed:` as a table."""
    pairs = [pair.partition(":") for pair in text.split(",")]
    if not all(name and colon for name, colon, _ in pairs):
        raise ValueError(text)
    return {name: other for name, _, other in pairs}


_HTTP_SETTINGS: dict[str, Callable[[str], Any]] = {
    "endpoint": str, "prefill": str, "separator": str, "template": str, "temperature": float, "top_p": float,
    "max_tokens": int, "logprobs": bool, "running_usage": bool, "fields": _renamed,
}  # fmt: skip
"""Settings of a policy in a server that its address may name, with their types."""
_HTTP_FORMS = {"fields": "FIELD:OTHER pairs with commas between, or FIELD: to leave one out"}
_HTTP_CHOICES = {"endpoint": ("chat", "completions"), "prefill": ("continue", "plain")}


def policy_at(source: str, *, concurrency: int = 16, raw: bool = False, dtype: str = "") -> Policy:
    """A policy by name: a model folder, a hub name, a built-in one, `vllm:NAME`, or `URL#MODEL` for a server.

    Settings of the server's policy may follow: `URL#MODEL?endpoint=completions&temperature=0.7`. Its API key is read
    from STEPREWARD_API_KEY, or else OPENAI_API_KEY.

    Args:
        source: the name.
        concurrency: most requests under way at once to a server.
        raw: send prompts as bare text, without a chat template.
        dtype: of a model loaded here; its own choice where empty.

    Raises:
        InputError: an address without a model, or a setting that does not fit.
        UnknownNameError: there is no such setting.
        ModelError: the model cannot be loaded.
    """
    bare: dict[str, Any] = {"template": "{prompt}"} if raw else {}
    if source.startswith(VLLM):
        return VllmPolicy.load(source, **bare)
    if not source.startswith(("http://", "https://")):
        local: Policy = optional("stepreward.policies.local").LocalPolicy.load(source, dtype=dtype or "auto", **bare)
        return local
    url, _, model = source.partition("#")
    if not model:
        shown = without_secrets(f"{source}#").rstrip("#")
        raise InputError(f"{shown} names no model", remedy=f"pass {shown.rstrip('/')}#MODEL")
    model, _, query = model.partition("?")
    key = os.environ.get("STEPREWARD_API_KEY") or os.environ.get("OPENAI_API_KEY", "")
    settings = dict(_http_setting(name, value) for name, value in parse_qsl(query, keep_blank_values=True))
    settings |= {**bare, "endpoint": "completions"} if raw else {}
    try:
        return HttpPolicy(Server(url, model, key, concurrency=concurrency), **settings)
    except ValueError as error:
        raise InputError(str(error), source=without_secrets(source)) from error


def _http_setting(name: str, text: str) -> tuple[str, Any]:
    """A setting of `HttpPolicy` in the type that it takes."""
    if name not in _HTTP_SETTINGS:
        raise UnknownNameError("setting of a policy in a server", name, _HTTP_SETTINGS)
    kind = _HTTP_SETTINGS[name]
    try:
        value = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        form = _HTTP_FORMS.get(name) or f"a {getattr(kind, '__name__', kind)}"
        raise InputError(f"{name} must be {form}, got {text!r}") from None
    if text not in _HTTP_CHOICES.get(name, (text,)):
        raise InputError(f"{name} must be one of {', '.join(_HTTP_CHOICES[name])}, got {text!r}")
    return name, value
