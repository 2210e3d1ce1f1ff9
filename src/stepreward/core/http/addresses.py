"""Addresses of servers, as they may be shown."""

from __future__ import annotations

import re

_LOGIN = re.compile(r"(https?:/+)[^\s/?#]*@")
_PARAMETERS = re.compile(r"(https?:/+[^\s?#'\"]*)\?[^\s#'\"]*")
_NAMED = re.compile(r"([?&](?:[\w-]*(?:key|token|secret|password)|auth|sig|signature)=)[^\s&#'\"]+", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """A text without the users, passwords and parameters of addresses in it, as the user may have typed them.

    Settings behind a model's name stay, but for those that are named as a secret is, such as `api_key`.
    """
    return _NAMED.sub(r"\1***", _PARAMETERS.sub(r"\1", _LOGIN.sub(r"\1", text)))


def is_address(name: object) -> bool:
    """Whether a name is the address of a model in a server."""
    return isinstance(name, str) and name.startswith(("http://", "https://"))
