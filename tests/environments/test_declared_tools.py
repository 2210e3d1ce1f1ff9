"""Commands as tools in OpenAI's form: written out by hand."""

from __future__ import annotations

from stepreward.environments.given_commands import Command, CommandSet, declared_tool, texts_schema

READ = Command("read", "Reads lines.", {"path": "string", "first": "integer"}, frozenset({"first"}))


def test_commands_as_tools_require_what_is_not_optional() -> None:
    properties = {"path": {"type": "string"}, "first": {"type": "integer"}}
    schema = {"type": "object", "properties": properties, "required": ["path"], "additionalProperties": False}
    function = {"name": "read", "description": "Reads lines.", "parameters": schema}
    assert CommandSet([READ]).declared == [{"type": "function", "function": function}]


def test_tools_of_texts_require_and_describe_all() -> None:
    made = declared_tool("price", "Its price.", texts_schema(item="such as lamp", shop="by name"))["function"]
    assert made["parameters"]["required"] == ["item", "shop"]
    assert made["parameters"]["properties"]["shop"] == {"type": "string", "description": "by name"}
