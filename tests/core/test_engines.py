"""What differs from one release of an engine to the next."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from stepreward.core.engines import cache_argument


def newer(input_ids: Any, position_ids: Any = None, cache: Any = None, **more: Any) -> None:
    """The signature of transformers 5.24."""


def older(input_ids: Any, position_ids: Any = None, past_key_values: Any = None, **more: Any) -> None:
    """The signature of transformers 4.56 to 5.23."""


def without(input_ids: Any, **more: Any) -> None:
    """A model that keeps nothing."""


@pytest.mark.parametrize(("forward", "name"), [(newer, "cache"), (older, "past_key_values"), (without, "")])
def test_keys_and_values_are_passed_under_the_name_that_the_model_knows(forward: Any, name: str) -> None:
    assert cache_argument(SimpleNamespace(forward=forward)) == name
