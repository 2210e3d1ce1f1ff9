"""What every check of a contract shares: the error, and the rules for attributes."""

from __future__ import annotations

from stepreward.core.errors import ContractError


def name_of(checked: object) -> str:
    """How an error names the object: its class, and its own name where it has one."""
    name = getattr(checked, "name", "")
    return f"{type(checked).__name__} {name!r}" if isinstance(name, str) and name else type(checked).__name__


def require(holds: bool, checked: object, rule: str, found: str, remedy: str) -> None:
    """Raises unless a rule holds.

    Raises:
        ContractError: `holds` is False.
    """
    if not holds:
        raise ContractError(name_of(checked), rule, found, remedy)


def require_attributes(checked: object, *counts: str) -> None:
    """A text `name`, and whole numbers of at least 1.

    Args:
        checked: the object.
        counts: names of the attributes that are whole numbers.

    Raises:
        ContractError: one is missing or is something else.
    """
    name = getattr(checked, "name", None)
    known = isinstance(name, str) and bool(name)
    require(known, checked, "name", f"name is {name!r}", "give it a text: caches and provenance use it")
    for attribute in counts:
        value = getattr(checked, attribute, None)
        whole, found = type(value) is int and value >= 1, f"{attribute} is {value!r}"
        require(whole, checked, attribute, found, f"set {attribute} to a whole number, at least 1")
