"""For all tests: which of them share a worker where several run."""

from __future__ import annotations

import gc
import os
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.strategies import text

from tests import forked
from tests.effort import left_out, scaled

# A test that states no number of examples tries these; none fails by the clock.
settings.register_profile("scaled", max_examples=scaled(100), deadline=None)
settings.load_profile("scaled")
# Read where Hugging Face's libraries are imported: which test does that first must not decide what another one sees.
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


LONGEST = (
    "commands",
    "smoke commands",
    "tests/cli/test_startup.py",
    "tests/real/test_real_data.py",
    "tests/cli/test_hub.py",
    "tests/policies/test_http.py",
    "tests/train/test_trainer.py",
    "tests/test_docs.py",
    "tests/test_examples.py",
    "tests/cli/test_sigterm.py",
    "run",
    "tests/cli/test_own_files.py",
    "tests/connect/test_trl.py",
    "tests/policies/test_local.py",
    "tests/train/test_objective_training.py",
    "tests/train/test_parameters.py",
    "tests/core/test_answer_log.py",
    "tests/serve/test_load.py",
    "tests/train/test_log_ratios.py",
    "tests/score/test_checkpoints.py",
    "tests/pipeline/test_reinforce.py",
    "tests/credit/test_credit_contract.py",
    "tests/core/test_segmentation.py",
    "tests/formats/test_contract.py",
    "tests/cli/test_judged.py",
    "doctor",
    "tests/cli/test_label_failures.py",
    "tests/credit/test_rules_sql.py",
    "tests/connect/test_trl_sources.py",
    "browser",
    "tests/policies/test_vllm_policy.py",
    "tests/cli/test_hub_upload.py",
    "tests/serve/test_deployment.py",
    "tests/serve/test_doors.py",
    "tests/serve/test_guard.py",
    "tests/train/test_annotators.py",
    "tests/cli/test_composed.py",
    "tests/search/test_particles.py",
    "tests/search/test_repair.py",
    "tests/label/test_label_run.py",
    "tests/train/test_mixing.py",
    "tests/cli/test_boundary.py",
    "tests/serve/test_prefixes.py",
    "tests/real/test_real_training.py",
    "tests/tasks/test_mathematics_limits.py",
    "tests/search/test_conformance.py",
    "tests/score/test_formula.py",
    "tests/score/test_next_tokens.py",
    "tests/test_layers.py",
    "tests/train/test_dry_run.py",
    "tests/train/test_recipes.py",
    "tests/train/test_streaming.py",
    "tests/train/test_processes.py",
    "tests/serve/test_real.py",
    "tests/testing/test_checks.py",
)
"""Groups that take more than 15 seconds, the longest first: they begin first, so that the workers end at about once."""


def pytest_sessionstart(session: pytest.Session) -> None:
    """Starts the server of forked programs for all workers; it loads its libraries while the tests are collected."""
    if session.config.getoption("workers", 0):
        capture: Any = session.config.pluginmanager.getplugin("capturemanager")
        capture.resume_global_capture()  # What the programs print is not for the terminal.
        forked.start_server()
        capture.suspend_global_capture()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps each file's tests together, unless they belong to a group: what its fixtures make is made once."""
    # Who names a case wants it.
    dropped = set() if any("[" in name for name in config.args) else {*left_out(items)}
    if dropped:
        config.hook.pytest_deselected(items=[*dropped])
        items[:] = [item for item in items if item not in dropped]
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.split("::")[0]))
    items.sort(key=_rank)


def pytest_collection_finish() -> None:
    """Takes what is loaded by now out of garbage collection: trainers call `gc.collect`, and its cost is the heap's."""
    # In a fresh clone the first text takes 3 seconds, which Hypothesis counts against the test that draws it.
    text().validate()
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Puts it back, so that what is left at the end is freed: extension modules would list it as leaked."""
    gc.unfreeze()


def _rank(item: pytest.Item) -> int:
    mark = item.get_closest_marker("xdist_group")
    group = (mark.args or (mark.kwargs["name"],))[0] if mark else ""
    return LONGEST.index(group) if group in LONGEST else len(LONGEST)
