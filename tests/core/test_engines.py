"""What differs from one release of an engine to the next."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from stepreward.core.errors import ModelError
from stepreward.core.optional import cache_argument, engine_faults, vllm_module


def newer(input_ids: Any, position_ids: Any = None, cache: Any = None, **more: Any) -> None:
    """The signature of transformers 5.24."""


def older(input_ids: Any, position_ids: Any = None, past_key_values: Any = None, **more: Any) -> None:
    """The signature of transformers 4.56 to 5.23."""


def without(input_ids: Any, **more: Any) -> None:
    """A model that keeps nothing."""


@pytest.mark.parametrize(("forward", "name"), [(newer, "cache"), (older, "past_key_values"), (without, "")])
def test_keys_and_values_are_passed_under_the_name_that_the_model_knows(forward: Any, name: str) -> None:
    assert cache_argument(SimpleNamespace(forward=forward)) == name


def test_the_log_of_vllm_stays_out_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_LOGGING_STREAM", raising=False)
    with pytest.raises(ModelError, match="vLLM is not here"):
        vllm_module("a_release_that_is_not_installed")
    assert os.environ.pop("VLLM_LOGGING_STREAM") == "ext://sys.stderr"


def test_whatever_an_engine_raises_is_one_line() -> None:
    with (
        pytest.raises(ModelError, match="the vLLM engine failed with OSError: lost; its log says more"),
        engine_faults(ModelError),
    ):
        raise OSError("lost\nin many lines")
