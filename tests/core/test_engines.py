"""What differs from one release of an engine to the next."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
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


ENGINE = """
import threading, time

class Core:
    def __init__(self):
        self.ended = threading.Event()
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        self.ended.wait()
        time.sleep(0.3)
        print("the thread ended by itself", flush=True)

    def shutdown(self):
        self.ended.set()

class LLM:
    def __init__(self, **arguments):
        self.llm_engine = self
        self.engine_core = Core()
"""


def test_the_end_of_the_process_waits_for_the_threads_of_an_engine(tmp_path: Path) -> None:
    (tmp_path / "vllm.py").write_text(ENGINE)
    code = "from stepreward.core.optional import vllm_engine; llm = vllm_engine(model='tiny')"
    more = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **more}, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "the thread ended by itself\n"
