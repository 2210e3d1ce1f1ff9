"""Addresses of servers, as they may be shown."""

from __future__ import annotations

import re
from urllib.parse import parse_qs

from stepreward.core.errors import InputError

SEVERAL = re.compile(r",(?=https?://)")
"""What is between the addresses of several servers."""
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


def split_address(address: str) -> tuple[str, str, str]:
    """Servers, model and settings of `URL#MODEL?SETTINGS`, model and settings "" where there are none.

    Several servers of one model are `URL,URL#MODEL?SETTINGS` or `URL#MODEL,URL#MODEL?SETTINGS`.

    Raises:
        InputError: the servers are said to have different models.
    """
    pieces = SEVERAL.split(address)
    urls, models, settings = list[str](), list[str](), ""
    for at, piece in enumerate(pieces, 1):
        url, _, rest = piece.partition("#")
        model, begun, settings = rest.partition("?")
        urls.append(url)
        models += [model] * bool(model)
        if begun:
            # Settings come last, and may hold such a comma themselves.
            settings = ",".join([settings, *pieces[at:]])
            break
    if len(set(models)) > 1:
        what = f"servers of one name must serve one model, got {' and '.join(dict.fromkeys(models))}"
        raise InputError(what, source=without_secrets(address), remedy="name servers of the same model")
    return ",".join(urls), models[0] if models else "", settings


def lasting(address: str) -> str:
    """An address as it stands in plans of folders: `place=`, or else the first server, stands for the servers.

    Other names than addresses are themselves.
    """
    if not is_address(address):
        return address
    urls, model, settings = split_address(address)
    place = parse_qs(settings).get("place", SEVERAL.split(urls))[0]
    return f"{place}#{model}?{settings}".rstrip("?")
