"""Who can reach a server, by the address that it listens at."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from stepreward.core.errors import InputError


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
