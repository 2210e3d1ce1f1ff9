"""Who can reach a server, by the address that it listens at."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Sequence

from stepreward.core.errors import InputError

KEYS = "STEPREWARD_SERVE_KEYS"
"""The environment's variable that holds API keys, parted by commas."""


def known_keys(more: Iterable[str] = ()) -> list[str]:
    """The API keys of the environment, and more."""
    return [key.strip() for key in [*os.environ.get(KEYS, "").split(","), *more] if key.strip()]


def require_keys(host: str, keys: Sequence[str], *, remedy: str) -> None:
    """Refuses to listen beyond this machine without API keys.

    Args:
        host: where the server listens.
        keys: its API keys.
        remedy: how to give keys.

    Raises:
        InputError: other machines can reach the host, and there is no key.
    """
    if not keys and not _is_loopback(host):
        raise InputError(f"{host} can be reached by others and there is no API key", remedy=remedy)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
