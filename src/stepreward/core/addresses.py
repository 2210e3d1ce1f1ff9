"""Addresses of servers, as they may be shown."""

from __future__ import annotations

import re


def without_secrets(text: str) -> str:
    """A text without the users, passwords and parameters of addresses in it, as the user may have typed them."""
    text = re.sub(r"(https?://)[^\s/?#]*@", r"\1", text)
    return re.sub(r"(https?://[^\s?#]*)\?[^\s#]*(?=#)", r"\1", text)
