"""Records as versions 1 and 2 wrote them, all fields side by side, in the layout of today."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import Conversation, Encoding, PerPrefix, PerStep, WholeText

KINDS: Mapping[str, type[Encoding]] = {kind.kind: kind for kind in (PerStep, Conversation, WholeText, PerPrefix)}
"""The encodings, by their kinds."""
_KIND_OF = {"step": "per-step", "segment": "per-step", "joined": "whole-text", "prefix": "per-prefix"}
"""Kinds of encodings by what was called `tokenise`."""
# Old records listed the fields of all encodings. A field that an encoding lacks is dropped if its value meant nothing;
# any other value is kept, so that the record is refused and the recipe does not change silently.
_UNUSED: Mapping[str, tuple[object, ...]] = {
    "template": ("turns", "messages"), "tokenise": ("segment", "joined", "prefix"), "read": ("at", "answer"),
    "between": ("",), "separator": ("",), "separator_token": (True, False), "tag": ("",), "second": ("",),
    "answer": ("",), "closed": (True, False), "end": ("",),
}  # fmt: skip
"""Values of fields that said nothing about encodings which lack them."""


def old_names() -> set[str]:
    """Names of fields that may stand side by side."""
    return {f.name for part in (Readout, *KINDS.values()) for f in fields(part)} - {"kind"} | {"closed"}


def nested(row: Mapping[str, Any], kind: str = PerStep.kind) -> dict[str, Any]:
    """A record, or some fields of one, in the layout of today; one that is in it already stays as it is.

    Args:
        row: the fields by their names.
        kind: of the encoding, where the fields do not decide it.
    """
    made = dict(row)
    flat = {name: made.pop(name) for name in old_names() & made.keys()}
    readout = {f.name: flat.pop(f.name) for f in fields(Readout) if f.name in flat}
    if isinstance(made.get("readout"), str):
        readout["kind"] = made.pop("readout")
    for name, part in (("encoding", flat and _encoding(flat, kind)), ("readout", readout)):
        if part and isinstance(made.get(name, {}), dict):
            made[name] = part | made.get(name, {})
    return made


def _encoding(flat: dict[str, Any], kind: str) -> dict[str, Any]:
    """The encoding of some fields; what contradicts its kind stays, to be refused."""
    if flat.get("template") in ("turns", "messages"):
        kind = Conversation.kind
    else:
        kind = _KIND_OF.get(str(flat.get("tokenise")), kind)
    # `separator_token=False` let a step of joined text end in any token, which is `tag=None` today.
    if kind == WholeText.kind and flat.get("separator_token") is False and flat.get("separator"):
        flat["tag"] = None
    # A closed message without an end token is `end=None` today.
    if kind == PerPrefix.kind and flat.pop("closed", None) is True and flat.get("end") == "":
        del flat["end"]
    if kind == PerStep.kind and flat.get("separator") == "":
        flat.pop("separator_token", None)
    own = {f.name for f in fields(KINDS[kind])}
    return {"kind": kind} | {n: v for n, v in flat.items() if n in own or v not in _UNUSED.get(n, ())}
