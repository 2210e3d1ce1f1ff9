"""The registry: data by name, presets, and the errors that keep it honest."""

from __future__ import annotations

import numpy as np
import pytest

from stepreward.core.catalog import Family, families
from stepreward.core.errors import InputError, MissingDataError, UnknownNameError


@pytest.fixture
def family() -> Family:
    family = Family("credit", "(scores, mask) -> (B, S)", "a family for tests")

    @family.method("double", paper="arXiv:0000.00000", equation="Eq. 1")
    def scaled(scores: np.ndarray, mask: np.ndarray, *, factor: float = 2.0) -> np.ndarray:
        """Scales the scores."""
        return np.where(mask, factor * scores, 0)

    family.preset("triple", of="double", paper="arXiv:1111.11111", factor=3.0)
    return family


def test_data_and_settings_follow_from_the_signature(family: Family) -> None:
    assert family["double"].data == ("scores", "mask")
    assert family["double"].settings == {"factor": 2.0}
    assert family["triple"].settings == {"factor": 3.0}
    assert family["double"].summary == "Scales the scores."
    assert [m.name for m in family] == ["double", "triple"]


def test_take_picks_data_by_name_and_presets_fix_numbers(family: Family) -> None:
    batch = {"scores": np.array([[1.0, 2.0]]), "mask": np.array([[True, False]]), "group": None, "other": 1}
    np.testing.assert_array_equal(family["double"].take(batch), [[2.0, 0.0]])
    np.testing.assert_array_equal(family["triple"].take(batch), [[3.0, 0.0]])
    np.testing.assert_array_equal(family["triple"].take(batch, factor=5.0), [[5.0, 0.0]])
    np.testing.assert_array_equal(family["triple"](batch["scores"], batch["mask"]), [[3.0, 0.0]])


def test_errors_name_what_is_missing_and_what_is_there(family: Family) -> None:
    with pytest.raises(MissingDataError, match=r"double needs 'mask'; this batch has 'scores'"):
        family["double"].take({"scores": np.zeros((1, 1))})
    with pytest.raises(UnknownNameError, match="did you mean double"):
        family["doubel"]
    with pytest.raises(UnknownNameError, match="setting of double"):
        family["double"].take({"scores": np.zeros(1), "mask": np.ones(1)}, facter=1.0)
    with pytest.raises(UnknownNameError, match="setting of double"):
        family.preset("x", of="double", paper="p", facter=1.0)


def test_registration_refuses_what_no_reader_could_understand(family: Family) -> None:
    def documented(scores: np.ndarray) -> None:
        """Does nothing."""

    def undocumented(scores: np.ndarray) -> None: ...

    def unknown_data(rewards_of_mine: np.ndarray) -> None:
        """Asks for data outside the vocabulary."""

    def without_offsets(rewards: np.ndarray, place: np.ndarray) -> None:
        """Takes places without the offsets."""

    with pytest.raises(ValueError, match="already registered"):
        family.method("double", paper="p")(documented)
    with pytest.raises(ValueError, match="no docstring"):
        family.method("a", paper="p")(undocumented)
    with pytest.raises(ValueError, match="neither a paper"):
        family.method("a")(documented)
    with pytest.raises(ValueError, match="rewards_of_mine"):
        family.method("a", paper="p")(unknown_data)
    with pytest.raises(ValueError, match="'place', which needs 'offsets'"):
        family.method("a", paper="p")(without_offsets)
    with pytest.raises(ValueError, match=r"asks for \['money'\]; known: policy, grader"):
        family.method("a", paper="p", asks=("money",))(documented)
    with pytest.raises(InputError, match="declares no budget"):
        family["double"].within(8)


def test_the_source_is_the_paper_or_else_who_states_it() -> None:
    assert families["loss"]["bce"].source == "arXiv:2312.08935 Eq. 2"
    assert families["loss"]["columns"].source.startswith("independent columns: arXiv:2510.01167")
