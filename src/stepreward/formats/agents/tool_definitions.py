"""The tools that a log says its agent had, as one layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepreward.core.segment.tool_calls import parsed
from stepreward.core.types import TOOLS

_FIELDS = (TOOLS, "functions")


def tool_definitions(value: object) -> list[dict[str, Any]]:
    """Tools as OpenAI's chat API takes them; empty where one of them is no function with parameters.

    Args:
        value: tools of that API, of OpenAI's Responses API, of Anthropic's, or OpenAI's old `functions`; or their JSON.
    """
    found = parsed(value) if isinstance(value, str) else value
    if not isinstance(found, list):
        return []
    made = [_definition(one) for one in found]
    return [one for one in made if one] if all(made) else []


def _definition(tool: object) -> dict[str, Any]:
    """One tool, or nothing."""
    if not isinstance(tool, Mapping):
        return {}
    own = tool.get("function", tool)
    if not isinstance(own, Mapping) or not isinstance(own.get("name"), str):
        return {}
    schemas = [own[name] for name in ("parameters", "input_schema") if isinstance(own.get(name), Mapping)]
    if not schemas:
        return {}
    told = {name: own[name] for name in ("description", "strict") if own.get(name) is not None}
    return {"type": "function", "function": {"name": own["name"], **told, "parameters": dict(schemas[0])}}


def tools_apart(facts: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tools among the facts of a log, as the meta of its problem, and the facts without them.

    Tools that cannot be read stay among the facts.
    """
    for name in _FIELDS:
        if tools := tool_definitions(facts.get(name)):
            return {TOOLS: tools}, {other: fact for other, fact in facts.items() if other != name}
    return {}, dict(facts)
