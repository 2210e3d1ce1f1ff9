"""Settings as `name=value`: the type, the choices and the owner of each follow from the catalog."""

from __future__ import annotations

from typing import Literal

import pytest

from stepreward.cli.flags.method_settings import blamed_on_settings, shortcut
from stepreward.core.catalog import estimate, loss, search, transform
from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.method import Method
from stepreward.core.settings_text import read_settings
from stepreward.core.vocabulary import Count


def first(*, n: Count = 8, rate: float = 0.5, root: bool = False, how: Literal["wrong", "drop"] = "wrong") -> None:
    """Has a setting of every kind."""
    if rate > 1:
        raise ValueError(f"rate must be at most 1, got {rate}")


def second(*, rate: float = 0.1, soft_steps: int = 2) -> None:
    """Shares a setting with the first."""


FIRST, SECOND = Method("estimate", "first", first, ""), Method("transform", "second", second, "")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("n=3", 3),
        ("rate=1", 1.0),
        ("rate=1e-6", 1e-6),
        ("root=true", True),
        ("root=No", False),
        ("how=drop", "drop"),
        (" n = 3 ", 3),
    ],
)
def test_values_take_the_type_of_the_default(text: str, value: object) -> None:
    (made,) = read_settings([text], FIRST)
    (got,) = made.values()
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("n=0", "whole number of at least 1, got '0'"),
        ("n=-3", "whole number of at least 1"),
        ("n=2.5", "whole number of at least 1"),
        ("rate=fast", "a finite number, got 'fast'"),
        ("rate=nan", "a finite number"),
        ("rate=inf", "a finite number"),
        ("root=2", "true or false, got '2'"),
        ("how=both", "one of wrong, drop, got 'both'"),
        ("n=", "whole number"),
        ("n", "expected name=value, got 'n'"),
        ("=3", "expected name=value"),
    ],
)
def test_a_value_that_does_not_fit_names_what_would(text: str, says: str) -> None:
    with pytest.raises(InputError, match=r"for example|give any of") as error:
        read_settings([text], FIRST)
    assert says in str(error.value)


def test_settings_go_to_the_method_that_has_them() -> None:
    assert read_settings(["soft_steps=0", "n=4"], FIRST, SECOND) == ({"n": 4}, {"soft_steps": 0})
    assert read_settings(["second.rate=0.2", "first.rate=0.3"], FIRST, SECOND) == ({"rate": 0.3}, {"rate": 0.2})
    with pytest.raises(InputError, match=r"write first\.rate or second\.rate"):
        read_settings(["rate=0.2"], FIRST, SECOND)
    with pytest.raises(InputError, match="given twice"):
        read_settings(["n=4", "first.n=5"], FIRST, SECOND)
    with pytest.raises(UnknownNameError, match=r"setting of first or second is called 'rat'; did you mean rate\?"):
        read_settings(["rat=0.2"], FIRST, SECOND)
    with pytest.raises(UnknownNameError, match=r"third\.n"):
        read_settings(["third.n=2"], FIRST, SECOND)


def test_every_default_of_the_catalog_can_be_passed_as_it_stands() -> None:
    for family in (estimate, transform, loss, search):
        for method in family:
            (made,) = read_settings([f"{k}={v}" for k, v in method.settings.items()], method)
            assert made == method.settings


def test_numbers_are_separated_by_commas() -> None:
    assert read_settings(["quantiles=0.2,0.8"], loss["quantile"]) == ({"quantiles": (0.2, 0.8)},)
    assert read_settings(["weights="], loss["columns"]) == ({"weights": ()},)
    with pytest.raises(InputError, match=r"separated by commas, got 'low'; for example quantiles=0\.1"):
        read_settings(["quantiles=low"], loss["quantile"])


def test_what_only_python_can_say_is_refused_as_text() -> None:
    assert read_settings(["embed=none"], search["ets"]) == ({"embed": None},)
    with pytest.raises(InputError, match="'embed' of ets is no text; pass it in Python"):
        read_settings(["embed=minilm"], search["ets"])


def test_a_flag_stands_for_the_first_setting_that_the_method_has() -> None:
    assert shortcut(FIRST, "--rollouts", None, "n") == []
    assert shortcut(FIRST, "--beams", 4, "beams", "n") == ["first.n=4"]
    with pytest.raises(InputError, match="second does not know --rollouts; drop it; its settings are rate, soft_steps"):
        shortcut(SECOND, "--rollouts", 4, "n")


def test_only_errors_about_settings_are_blamed_on_them() -> None:
    with pytest.raises(InputError, match="first: rate must be at most 1, got 2"), blamed_on_settings(FIRST):
        FIRST(rate=2)
    with pytest.raises(ValueError, match="invalid literal") as error, blamed_on_settings(search["beam"]):
        int("x")
    assert not isinstance(error.value, InputError)
