"""The Dockerfile and the systemd unit of the documentation: their flags exist, and what they start serves and stops."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
import urllib.request
from configparser import ConfigParser
from pathlib import Path

import pytest

from stepreward.cli.commands import command_of
from tests.docs import ROOT, blocks

PAGE = ROOT / "docs" / "guides" / "deployment.md"
(DOCKERFILE,) = blocks(PAGE, "dockerfile")
(UNIT,) = blocks(PAGE, "ini")
INSTRUCTIONS = {
    line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in DOCKERFILE.replace("\\\n", " ").splitlines()
}


def unit() -> ConfigParser:
    """The systemd unit."""
    made = ConfigParser(interpolation=None)
    made.optionxform = str  # type: ignore[assignment, method-assign]  # names of settings have capitals
    made.read_string(UNIT)
    return made


STARTED = {"docker": json.loads(INSTRUCTIONS["CMD"]), "systemd": shlex.split(unit()["Service"]["ExecStart"])}


@pytest.mark.parametrize("where", STARTED)
def test_every_flag_exists(where: str) -> None:
    program, command, *words = STARTED[where]
    assert (Path(program).name, command) == ("stepreward", "serve")
    known = {flag for option in command_of("serve").params for flag in option.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_the_image_installs_extras_that_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (named,) = re.findall(r"stepreward\[([a-z,]+)\]", INSTRUCTIONS["RUN"])
    assert set(named.split(",")) <= set(extras)
    assert {"models", "serve"} <= set(named.split(","))
    words = STARTED["docker"]
    assert words[words.index("--port") + 1] == INSTRUCTIONS["EXPOSE"]
    assert words[words.index("--model") + 1] == INSTRUCTIONS["COPY"].split()[-1]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    here = UNIT.replace("/opt/stepreward/bin/stepreward", sys.executable)
    (tmp_path / "stepreward.service").write_text(here)
    command = ["systemd-analyze", "verify", str(tmp_path / "stepreward.service")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "stepreward.service" not in done.stderr, done.stderr
    wrong = here.replace("NoNewPrivileges=yes", "NoNewPrivilege=yes")
    (tmp_path / "stepreward.service").write_text(wrong)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "NoNewPrivilege" in done.stderr  # so the check sees what is wrong


@pytest.mark.sampled(2)
@pytest.mark.parametrize("where", STARTED)
def test_what_is_started_is_healthy_and_stops(where: str, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("secret\n")
    words = STARTED[where][1:]
    for flag, value in {"--model": "tool", "--port": "0", "--keys": str(tmp_path / "keys")}.items():
        words[words.index(flag) + 1] = value
    command = [sys.executable, "-m", "stepreward", *words]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        assert running.stdout is not None
        said = running.stdout.readline()
        assert said.startswith("stepreward serves at http://0.0.0.0:"), running.communicate(timeout=20)
        address = f"http://127.0.0.1:{said.strip().rpartition(':')[2]}"
        (check,) = re.findall(r'python -c "(.*)"$', INSTRUCTIONS["HEALTHCHECK"])
        here = check.replace(f"http://127.0.0.1:{INSTRUCTIONS['EXPOSE']}", address)
        assert here != check
        subprocess.run([sys.executable, "-c", here], check=True, timeout=60)
        ask = json.dumps({"problem": "1 + 1?", "steps": ["1 + 1 = 3"]}).encode()
        head = {"Authorization": "Bearer secret", "Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(f"{address}/v1/steps", ask, head), timeout=60) as answer:
            assert json.load(answer)["scores"] == [0.0]
    finally:
        running.send_signal(signal.SIGTERM)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == 0, errors
