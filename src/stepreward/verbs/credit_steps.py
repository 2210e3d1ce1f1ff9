"""The verb credit."""

from __future__ import annotations

from typing import Any

from stepreward.core.vocabulary import DATA
from stepreward.credit.combined import Declared, credit_of


def credit(method: Declared, **arguments: Any) -> Any:
    """Turns step rewards into advantages.

    Args:
        method: of the family credit, such as `pure`, `rloo`, `grpo`, or a sum of several (`credit.combined`).
        arguments: flat data (`rewards`, `outcome`, `group`, `offsets`, ...; NaN is unscored) and
            its settings, by name. NumPy arrays, torch tensors or lists.

    Returns:
        (N,) one advantage a step, 0 where a step is unscored; a tensor where tensors came.

    Raises:
        InputError: data do not fit each other.
        MissingDataError: the method needs data that are not there.
        UnknownNameError: there is no such method or argument.
    """
    chosen = credit_of(method)
    data = {name: value for name, value in arguments.items() if name in DATA}
    return chosen.take(data, **{name: value for name, value in arguments.items() if name not in DATA})
