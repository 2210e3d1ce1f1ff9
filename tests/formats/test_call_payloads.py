"""Messages out of recorded calls: how deep they are looked for."""

from __future__ import annotations

from typing import Any

import pytest

from stepreward.formats.traces.call_payloads import messages


@pytest.mark.parametrize(
    "around",
    [
        lambda one: {"message": one},
        lambda one: {"messages": [one]},
        lambda one: {"choices": [one]},
        lambda one: {"output": one},
        lambda one: [[one]],
    ],
)
def test_messages_are_looked_for_some_levels_deep(around: Any) -> None:
    shallow: Any = {"role": "assistant", "content": "4"}
    deep = shallow
    for level in range(40):
        deep = around(deep)
        shallow = deep if level == 1 else shallow
    assert messages(shallow, "user") == [{"role": "assistant", "content": "4"}]
    assert messages(deep, "user") == []
