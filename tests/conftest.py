"""For all tests: which of them share a worker where several run."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from tests.effort import scaled

# A test that states no number of examples tries these; none fails by the clock.
settings.register_profile("scaled", max_examples=scaled(100), deadline=None)
settings.load_profile("scaled")
# Read where Hugging Face's libraries are imported: which test does that first must not decide what another one sees.
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps each file's tests together, unless they belong to a group: what its fixtures make is made once."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.split("::")[0]))
