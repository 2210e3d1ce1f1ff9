"""For all tests: which of them share a worker where several run."""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import settings

from tests.effort import scaled

# A test that states no number of examples tries these; none fails by the clock.
settings.register_profile("scaled", max_examples=scaled(100), deadline=None)
settings.load_profile("scaled")
# Read where Hugging Face's libraries are imported: which test does that first must not decide what another one sees.
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


LONGEST = (
    "smoke commands",
    "commands",
    "tests/cli/test_startup.py",
    "run",
    "tests/cli/test_own_files.py",
    "tests/cli/test_hub.py",
    "tests/train/test_trainer.py",
    "tests/serve/test_load.py",
    "tests/test_examples.py",
    "tests/test_docs.py",
    "tests/connect/test_trl.py",
    "tests/serve/test_real.py",
)
"""Groups that take longest, which begin first: whichever worker has less to do takes the many short ones at the end."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps each file's tests together, unless they belong to a group: what its fixtures make is made once."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.split("::")[0]))
    items.sort(key=_rank)


def pytest_collection_finish() -> None:
    """Takes what is loaded by now out of garbage collection: trainers call `gc.collect`, and its cost is the heap's."""
    gc.collect()
    gc.freeze()


def _rank(item: pytest.Item) -> int:
    mark = item.get_closest_marker("xdist_group")
    group = (mark.args or (mark.kwargs["name"],))[0] if mark else ""
    return LONGEST.index(group) if group in LONGEST else len(LONGEST)
