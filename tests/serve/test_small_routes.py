"""Routes that monitors ask, and numbers of pooled outputs in every width."""

from __future__ import annotations

from importlib.metadata import version

import httpx
import numpy as np
import pytest

from stepreward.serve.requests.request_schemas import PoolingRequest
from stepreward.serve.scoring.head_output_answers import _packed
from stepreward.serve.service import Served
from tests.serve.running import Digits, SaysAll, serving


def test_monitors_are_answered() -> None:
    with serving(Served(Digits(), grader=SaysAll(), method="majority")) as url:
        for verb in ("GET", "POST", "HEAD"):
            assert httpx.request(verb, f"{url}/ping").status_code == 200
        assert httpx.get(f"{url}/version").json()["version"] == version("stepreward")
        assert httpx.get(f"{url}/ping", headers={"Authorization": "Bearer wrong"}).status_code == 200


# 1, -1/2 and 0, by hand: sign, exponent with its bias, mantissa.
WIDTHS = {
    "float32": ("3f800000", "bf000000", "00000000"), "float16": ("3c00", "b800", "0000"),
    "bfloat16": ("3f80", "bf00", "0000"), "fp8_e4m3": ("38", "b0", "00"), "fp8_e5m2": ("3c", "b8", "00"),
}  # fmt: skip


@pytest.mark.parametrize("endianness", ["big", "little"])
@pytest.mark.parametrize("dtype", WIDTHS)
def test_numbers_are_packed_in_the_width_and_order_asked_for(dtype: str, endianness: str) -> None:
    body = PoolingRequest.model_validate({"input": "a", "embed_dtype": dtype, "endianness": endianness})
    words = [bytes.fromhex(word) for word in WIDTHS[dtype]]
    expected = b"".join(words if endianness == "big" else [word[::-1] for word in words])
    assert _packed(body, np.array([[1.0, -0.5], [0.0, 1.0]])) == expected + expected[: len(words[0])]
