"""Tools that an agent may call: exact calculation, Python and SQL in a sandbox, and functions of a problem's own.

Whatever a tool cannot do is a text that says so: the agent reads it.
"""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stepreward.core.optional import require_installed
from stepreward.core.sandbox.isolation import SandboxLimits
from stepreward.core.sandbox.programs import Output, Sandbox
from stepreward.core.types import Problem
from stepreward.environments.given_commands import declared_tool, texts_schema

Schema = Mapping[str, Any]
LONGEST_EXPRESSION, LONGEST_NUMBER = 300, 400
"""Characters of an expression, and digits of its numbers: more is refused, since powers grow without end."""
LONGEST_OUTPUT = 4000
"""Characters of a program's or query's output that are shown."""
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")
_OPERATORS: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip


@dataclass(frozen=True)
class AgentTool:
    """What an agent may call."""

    name: str
    description: str
    parameters: Schema
    """JSON Schema of the arguments, an object."""
    run: Callable[[Mapping[str, Any]], str]
    """From arguments that fit the schema to what is shown."""

    @property
    def declared(self) -> dict[str, Any]:
        """The tool in OpenAI's form."""
        return declared_tool(self.name, self.description, self.parameters)


def number_of(text: str) -> Fraction | None:
    """The last number that a text states; None where it states none."""
    found = _NUMBER.findall(text)
    return Fraction(found[-1].replace(",", "")) if found else None


def calculated(expression: str) -> Fraction | None:
    """The exact value of an expression of numbers, `+ - * / // % **` and brackets; None where it has none."""
    try:
        if len(expression) > LONGEST_EXPRESSION:
            return None
        return _value(ast.parse(expression.strip().replace(",", ""), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return _bounded(Fraction(str(node.value)))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        return _value(node.operand) * (-1 if isinstance(node.op, ast.USub) else 1)
    if not isinstance(node, ast.BinOp):
        raise ValueError("no arithmetic")
    left, right = _value(node.left), _value(node.right)
    if isinstance(node.op, ast.Pow):
        size = max(len(str(left.numerator)), len(str(left.denominator)))
        if right.denominator != 1 or abs(right) * size > LONGEST_NUMBER:
            raise ValueError("too large a power")
        return Fraction(left**right)
    if type(node.op) not in _OPERATORS:
        raise ValueError("no arithmetic")
    return _bounded(Fraction(_OPERATORS[type(node.op)](left, right)))


def _bounded(number: Fraction) -> Fraction:
    if max(number.numerator.bit_length(), number.denominator.bit_length()) > 4 * LONGEST_NUMBER:
        raise ValueError("too large a number")
    return number


def shown_number(number: Fraction) -> str:
    """A number as a text: whole ones as they are, others as a decimal of twelve digits."""
    return str(number.numerator) if number.denominator == 1 else f"{float(number):.12g}"


def calculator() -> AgentTool:
    """Calculates exactly."""

    def run(arguments: Mapping[str, Any]) -> str:
        found = calculated(arguments["expression"])
        return "this is no expression that can be calculated" if found is None else shown_number(found)

    about = "Calculates an expression of numbers, + - * / // % ** and brackets, exactly."
    return AgentTool("calculate", about, texts_schema(expression="such as 3 * (12 + 5)"), run)


class SandboxTool:
    """A tool whose input is run by a program in a sandbox, from its start each time; may be used from any thread.

    Args:
        program: reads one text from its standard input, and writes what is shown.
        before: imports that are made once.
        packages: that the program imports beside the standard library.
        limits: of one run.
    """

    def __init__(
        self, program: str, before: str = "", packages: tuple[str, ...] = (), limits: SandboxLimits | None = None
    ) -> None:
        found = [spec.origin for name in packages if (spec := find_spec(name)) and spec.origin]
        folders = [Path(origin).resolve().parents[1] for origin in found]
        self._program, self._before = program, before
        self._sandbox = Sandbox(limits or SandboxLimits(seconds=5), folders)

    def __call__(self, text: str) -> str:
        """What the program shows of a text.

        Raises:
            ModelError: the sandbox cannot be started.
        """
        outputs: Iterator[Output] = self._sandbox.outputs(self._program, [text], before=self._before)
        made = next(outputs)
        if made.why:
            return f"the program was ended: {made.why}"
        shown = made.text[:LONGEST_OUTPUT]
        more = f"... ({len(made.text) - LONGEST_OUTPUT:,} characters more)" if len(made.text) > LONGEST_OUTPUT else ""
        return (shown + more).rstrip("\n") or "(nothing was written)"


_PYTHON = """
import sys, traceback
code = sys.stdin.read()
try:
    exec(compile(code, "<tool>", "exec"), {"__name__": "__main__"})
except SystemExit:
    pass
except BaseException as error:
    sys.stdout.write("".join(traceback.format_exception_only(error)))
"""


@cache
def python() -> AgentTool:
    """Runs Python in a sandbox; nothing of one call is left for the next."""
    run = SandboxTool(_PYTHON)
    about = "Runs a Python program and shows what it prints. Every call begins anew."
    return AgentTool("python", about, texts_schema(code="the program"), lambda arguments: run(arguments["code"]))


_SQL = """
import json, sys, duckdb
job = json.loads(sys.stdin.read())
database = duckdb.connect(":memory:", config={"enable_external_access": "false"})
for statement in job["schema"]:
    database.execute(statement)
try:
    found = database.execute(job["query"])
    names = [column[0] for column in found.description or ()]
    rows = found.fetchmany(job["rows"] + 1)
    print(" | ".join(names))
    for row in rows[: job["rows"]]:
        print(" | ".join("NULL" if one is None else str(one) for one in row))
    if len(rows) > job["rows"]:
        print("... (more rows)")
except Exception as error:
    print(f"{type(error).__name__}: {error}".splitlines()[0])
"""


def sql(schema_of: list[str], rows: int = 50) -> AgentTool:
    """Queries a database of a problem's own, which is made anew for every query.

    Args:
        schema_of: statements that make the tables and fill them.
        rows: most rows that are shown.

    Raises:
        ModelError: DuckDB is not installed.
    """
    run = _duckdb()

    def query(arguments: Mapping[str, Any]) -> str:
        return run(json.dumps({"schema": schema_of, "query": arguments["query"], "rows": rows}))

    return AgentTool(
        "sql", "Runs a query on the database and shows its rows.", texts_schema(query="in SQL, for DuckDB"), query
    )


@cache
def _duckdb() -> SandboxTool:
    require_installed("duckdb")
    return SandboxTool(_SQL, "import duckdb", ("duckdb",), SandboxLimits(seconds=10))


def price(problem: Problem) -> AgentTool:
    """Tells the price of an item, by the problem's own list."""
    prices: Mapping[str, Any] = problem.meta["prices"]

    def run(arguments: Mapping[str, Any]) -> str:
        item = arguments["item"]
        return str(prices[item]) if item in prices else f"there is no {item} in the shop"

    return AgentTool("price", "Tells the price of an item of the shop.", texts_schema(item="such as lamp"), run)
