"""For the tests of servers: what each request of a client would do again is done once."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def certificates_read_once() -> Iterator[None]:
    """`httpx.get` and its like read all certificates for each request, some 40 ms, also where none is needed.

    OpenAI's client does so with `httpx2`, if that is there.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in filter(importlib.util.find_spec, ("httpx", "httpx2")):
            context = importlib.import_module(name).create_ssl_context()
            patch.setattr(f"{name}._transports.default.create_ssl_context", lambda *_, made=context, **__: made)
        yield
