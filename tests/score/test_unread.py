"""Models whose recipe could not be read are refused by name, and scored by a recipe that the user names."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.score.tiny_checkpoints import build

from stepreward.core.errors import ModelError
from stepreward.score.checkpoints.describe import checkpoints_page
from stepreward.score.checkpoints.known_checkpoints import checkpoints, judges
from stepreward.score.checkpoints.unread import UNREAD
from stepreward.score.load import load

NAMES = [name for row in UNREAD for name in row.names]


@pytest.mark.parametrize("name", NAMES)
def test_a_model_whose_recipe_is_not_known_is_refused_before_it_is_looked_for(name: str) -> None:
    for given in (name, f"http://127.0.0.1:9#{name}?endpoint=classify", f"/models/{name.rsplit('/', maxsplit=1)[-1]}/"):
        with pytest.raises(ModelError, match=r"cannot be scored as its authors do: .*pass like="):
            load(given)
    assert f"`{name}`" in checkpoints_page()


def test_a_recipe_of_the_users_own_is_followed(tmp_path: Path) -> None:
    one = build(tmp_path / "WebArbiter-7B", "qwen", "sequence-classification-1")
    assert load(one.folder, like="THUNLP/AgentRM-8B").score("1 + 1?", ["2"]).shape == (1,)


def test_no_model_has_a_row_and_a_refusal() -> None:
    last = {name.split("/")[-1] for name in NAMES}
    assert not last & {name.split("/")[-1] for rows in (checkpoints, judges) for name in rows.by_any_name()}
