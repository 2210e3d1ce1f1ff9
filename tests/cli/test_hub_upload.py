"""Models exported onto a hub: by its own client, private unless said otherwise, and read back from there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from stepreward.policies.model_sources import resolve
from stepreward.score.encode.per_step import EncoderRecord
from stepreward.score.model.step_reward_model import StepRewardModel
from tests.cli.test_hub import SETTINGS_AGAIN, settings
from tests.forked import command
from tests.hub import serving

TOKEN = "hf_" + "secret" * 6
ROW = {"question": "Kai has 10 nuts. Kai finds 1 more nuts. How many?", "steps": ["10 + 1 = 11\n", "Answer: 11\n"]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "model"
    StepRewardModel.from_backbone(resolve("builtin:arithmetic"), EncoderRecord(), seed=1).save_pretrained(folder)
    return folder


class Hub:
    """A hub on loopback, and what a user's commands do with it."""

    def __init__(self, work: Path, models: Path, private: set[str], endpoint: str) -> None:
        self.work, self.models, self.private, self.endpoint = work, models, private, endpoint

    def run(self, line: str, token: str = TOKEN) -> CompletedProcess[str]:
        # Its other transport, Xet, is a service of its own: without it the client uploads by plain HTTP.
        environment = {**settings(self.work, self.endpoint), "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}
        return command(line, self.work, SETTINGS_AGAIN, environment=environment)

    def files(self, name: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.models / name).iterdir()}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    models, work, private = tmp_path / "hub", tmp_path / "work", set[str]()
    work.mkdir()
    models.mkdir()
    (work / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    with serving(models, TOKEN, private) as (endpoint, _):
        yield Hub(work, models, private, endpoint)


def test_an_export_is_uploaded_and_scores_from_there(hub: Hub, model: Path) -> None:
    done = hub.run(f"export {model} out --push mia/prm --json")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row == {"layout": "token-classification", "out": "out", "address": f"{hub.endpoint}/mia/prm"}
    assert hub.files("mia/prm") == {path.name: path.read_bytes() for path in (hub.work / "out").iterdir()}
    assert hub.private == {"mia/prm"}
    assert b'NAME = "mia/prm"' in hub.files("mia/prm")["README.md"]
    wanted = hub.run(f"score --model {model} --data rows.jsonl")
    found = hub.run("score --model mia/prm --data rows.jsonl")
    assert json.loads(found.stdout)["scores"] == pytest.approx(json.loads(wanted.stdout)["scores"], abs=1e-6)
    for text in (done.stdout, done.stderr, *map(str, hub.files("mia/prm").values())):
        assert TOKEN not in text


def test_an_upload_in_another_layout_replaces_the_weights(hub: Hub, model: Path) -> None:
    assert hub.run(f"export {model} --push mia/prm --layout stepreward --public").returncode == 0
    assert "step_head.safetensors" in hub.files("mia/prm")
    assert not hub.private
    refused = hub.run(f"export {model} --push mia/prm")
    assert refused.stderr.startswith("stepreward: mia/prm is public already; pass --public")
    assert refused.returncode == 1
    assert hub.run(f"export {model} --push mia/prm --public").returncode == 0
    assert {"model.safetensors", "config.json", "stepreward.json"} <= hub.files("mia/prm").keys()
    assert "step_head.safetensors" not in hub.files("mia/prm")
    assert [path.name for path in hub.work.iterdir()] == ["rows.jsonl"], "something was written beside"


@pytest.mark.parametrize(
    ("push", "token", "said"),
    [
        ("mia/prm", "hf_other", "stepreward: cannot upload to 'mia/prm': "),
        ("mia/prm", "", "stepreward: cannot upload to 'mia/prm': "),
        ("a/b/c", TOKEN, "stepreward: 'a/b/c' is no name of the hub; write owner/name"),
    ],
)
def test_what_the_hub_refuses_is_one_line(push: str, token: str, said: str, hub: Hub, model: Path) -> None:
    done = hub.run(f"export {model} --push {push}", token)
    assert done.returncode == 1
    assert done.stderr.startswith(said), done.stderr
    assert done.stderr.count("\n") == 1
    assert push != "mia/prm" or "log in with a token that may write" in done.stderr
    assert "hf_other" not in done.stderr


def test_a_hub_out_of_reach_is_one_line_and_the_folder_stays(hub: Hub, model: Path) -> None:
    hub.endpoint = "http://127.0.0.1:9"
    done = hub.run(f"export {model} out --push mia/prm")
    assert done.returncode == 1
    assert done.stderr.startswith("stepreward: cannot upload to 'mia/prm': "), done.stderr
    assert done.stderr.count("\n") == 1
    assert (hub.work / "out" / "README.md").is_file()
