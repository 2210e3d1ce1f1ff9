"""Writes what follows from the code: the pages of methods and the Python API, the flags of commands."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

import stepreward
from stepreward.cli.commands import command_of
from stepreward.connect.engines.engine_matrix import engines_table
from stepreward.core.catalog import credit, families
from stepreward.core.vocabulary import ASKS
from stepreward.credit.verify import CHANGES, GROUP, OBJECTIVES, verify
from stepreward.formats.description import formats_page
from stepreward.formats.samples import step_rewards
from stepreward.score.checkpoints.describe import checkpoints_page

PACKAGE = Path(__file__).parents[1] / "src" / "stepreward"


METHODS_HEAD = """Every method of every family, read from the registry. *Unverified* is what tries to follow a paper of
which no source that could be read confirms all; it says what, and does not bear the paper's name."""


def methods_page() -> str:
    """Every registered method with its paper, settings and docstring."""
    lines = ["# Methods", "", METHODS_HEAD, ""]
    for family in families.values():
        lines += [f"## {family.name}", "", f"`{family.signature}`: {family.about}.", ""]
        for method in family:
            paper = (
                f"[{method.paper}](https://arxiv.org/abs/{method.paper.removeprefix('arXiv:')})"
                if method.paper.startswith("arXiv:")
                else method.paper
            )
            origin = " ".join(part for part in (paper, method.equation, method.note and f"({method.note})") if part)
            settings = ", ".join(f"`{name}={value!r}`" for name, value in method.settings.items()) or "none"
            lines += [
                f"### {family.name}: {method.listed}",
                "",
                method.summary,
                "",
                *([f"- **Unverified**: {method.unverified}"] if method.unverified else ()),
                *([f"- Source: {origin}"] if origin else ()),
                f"- Data: {', '.join(f'`{d}`' for d in method.data)}",
                f"- Settings: {settings}",
                *([f"- Asks: {', '.join(ASKS[name] for name in method.asks)}"] if method.asks else ()),
                *([f"- A budget counts {method.budget.unit}"] if method.budget else ()),
                *([f"- Labels of its values: transform `{method.transform}`"] if method.transform else ()),
                "",
            ]
            lines += ["```text", inspect.getdoc(method.function) or "", "```", ""]
    return "\n".join(lines)


FLAGS = re.compile(r"^<!-- flags of (\w+) -->$", re.MULTILINE)
"""Where the page of commands wants a table of flags."""


def commands_page(written: str) -> str:
    """The page of commands with every table of flags, read from the command line's own definition."""
    return FLAGS.sub(lambda found: flags_table(found[1]), written)


def flags_table(name: str) -> str:
    """Every flag of a command, its default and what it means."""
    lines = ["| flag | default | meaning |", "|---|---|---|"]
    for option in command_of(name).params:
        flag = ", ".join(option.opts) if option.param_type_name == "option" else option.name.upper()
        default = "" if option.default in (None, "") or callable(option.default) else f"`{option.default}`"
        default = "required" if option.required else default
        lines.append(f"| `{flag}` | {default} | {' '.join((getattr(option, 'help', '') or '').split())} |")
    return "\n".join(lines)


NOUNS = ["core/types", "core/tree", "core/keys"]
"""Modules that have a page of their own."""


def api_pages() -> dict[str, str]:
    """The Python API: a page of verbs, one of nouns, and one a folder, by name of the page."""
    pages = {
        "verbs": verbs_page(),
        "nouns": _modules("Nouns", NOUNS),
    }
    for folder in sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")):
        if folder not in ("cli", "verbs"):
            pages[folder] = _modules(f"stepreward.{folder}", [folder], without=NOUNS)
    return {f"api/{name}.md": text for name, text in pages.items()}


def verbs_page() -> str:
    """The functions that `import stepreward` gives, under the names by which users call them."""
    face = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    imports = [one for one in ast.walk(face) if isinstance(one, ast.ImportFrom)]
    modules = {name.name: one.module for one in imports for name in one.names}
    lines = ["# Verbs", ""]
    # Nouns, which have a capital, have a page of their own.
    for name in [one for one in stepreward.__all__ if one in modules and one.islower()]:
        options = [f"{key}: stepreward.{name}" for key in ("heading", "toc_label")]
        lines += [f"::: {modules[name]}.{name}", "    options:", *(f"      {one}" for one in options), ""]
    return "\n".join(lines)


def _modules(title: str, places: list[str], without: Sequence[str] = ()) -> str:
    """A page on every module of some folders or files, but for those that have another page."""
    lines = [f"# {title}", ""]
    for place in places:
        found = sorted((PACKAGE / place).rglob("*.py")) or [(PACKAGE / place).with_suffix(".py")]
        for path in found:
            module = ".".join(("stepreward", *path.relative_to(PACKAGE).with_suffix("").parts))
            elsewhere = path.relative_to(PACKAGE).with_suffix("").as_posix() in without
            if not path.name.startswith("__") and not elsewhere:
                lines += [f"::: {module}", ""]
    return "\n".join(lines)


SUMMARY_HEAD = """# summary.json

`stepreward run` writes `summary.json` beside `report.html`; it holds every number of the report. Intervals are 95 %,
and `null` means not measured. The table is written from the JSON Schema `stepreward/pipeline/summary_schema.json`,
which comes with the package and by which a program may check a summary.

| key | content |
|---|---|
"""


def summary_page() -> str:
    """Every key of summary.json, read from its schema."""
    schema = json.loads((PACKAGE / "pipeline" / "summary_schema.json").read_text(encoding="utf-8"))
    parts = [SUMMARY_HEAD, *_rows("", schema, schema["$defs"]), "\n"]
    for name in ("estimate", "bill"):
        part = schema["$defs"][name]
        parts += [f"## {name}\n\n{part['description'].capitalize()}.\n\n| key | content |\n|---|---|\n"]
        parts += [*_rows("", part, schema["$defs"]), "\n"]
    return "".join(parts)


def _rows(above: str, part: dict[str, Any], defs: dict[str, Any]) -> Iterator[str]:
    """A row for each key below a part of the schema; what is defined once is named, not repeated."""
    keys = dict(part.get("properties", {}))
    rest = part.get("additionalProperties")
    if isinstance(rest, dict) and "properties" in rest:
        keys["NAME"] = {"description": "one of them", **rest}
    for name, value in keys.items():
        shared = value.get("$ref", "").removeprefix("#/$defs/")
        kind = f" (an [{shared}](#{shared}))" if "properties" in defs.get(shared, {}) else ""
        yield f"| `{above}{name}` | {value['description']}{kind} |\n"
        yield from _rows(f"{above}{name}.", value, defs)
        if isinstance(items := value.get("items"), dict):
            yield from _rows(f"{above}{name}[].", items, defs)


def examples_page() -> str:
    """Every example: what its docstring says and its code."""
    lines = ["# Examples", "", "Each is one file of `examples/` that runs in seconds; the tests run them all.", ""]
    for path in sorted((PACKAGE.parents[1] / "examples").glob("*.py")):
        source = path.read_text(encoding="utf-8")
        about = ast.get_docstring(ast.parse(source)) or ""
        code = source.split('"""\n', 1)[1].strip()
        lines += [f"## {path.name}", "", about, "", "```python", code, "```", ""]
    return "\n".join(lines)


CLIMBS = """# What credit climbs

Estimators of advantages climb different objectives. Here each one's expected gradient is enumerated in a small process,
over all groups of {n} trajectories, and held against exact gradients: 1 means it climbs that objective. In brackets
the limit of large groups, where it differs. The process ends when the policy says so, and all its step scores are
positive, as those of reward models are. The last columns tell which changes of the step scores leave the direction
alone. `stepreward.credit.verify` makes these numbers; the tests hold every entry to its claim.
"""


def objectives_page() -> str:
    """What the expected gradient of every estimator of advantages climbs, enumerated anew."""
    lines = [
        CLIMBS.format(n=GROUP),
        *(f"- **{name}**: {about}" for name, (about, _) in OBJECTIVES.items()),
        *(f"- *{name}*: {about}" for name, (about, _) in CHANGES.items()),
        "",
        f"| method | climbs | {' | '.join(OBJECTIVES)} | {' | '.join(f'*{name}*' for name in CHANGES)} |",
        "|---" * (2 + len(OBJECTIVES) + len(CHANGES)) + "|",
    ]
    for method in credit:
        found = verify(method)
        cosines = [_both(found.cosine[name], found.limit[name]) for name in OBJECTIVES]
        holds = ["yes" if found.invariant[name] else "no" for name in CHANGES]
        lines.append(f"| {method.listed} | {method.objective} | {' | '.join([*cosines, *holds])} |")
    return "\n".join([*lines, ""])


def _both(small: float, large: float) -> str:
    one, other = f"{small:.3f}", f"{large:.3f}"
    return one if one == other else f"{one} ({other})"


def on_files(files: Files, config: Any) -> Files:
    """Adds the generated pages to the site."""
    pages = {
        "examples.md": examples_page(),
        "methods.md": methods_page(),
        "checkpoints.md": checkpoints_page(),
        "formats.md": formats_page(),
        "objectives.md": objectives_page(),
        "summary.md": summary_page(),
        **api_pages(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def step_rewards_page(written: str) -> str:
    """The page of the step-reward contract with its keys, read from the schema."""
    whole = step_rewards.schema()
    head = "| key | content |\n|---|---|\n"
    rows = [head, *_rows("", whole, whole["$defs"]), "\n## step\n\n", head, *_rows("", whole["$defs"]["step"], {})]
    return written.replace("<!-- keys of step-rewards -->", "".join(rows))


def engines_page(written: str) -> str:
    """The page of RL engines with the table of what works, read from its data."""
    return written.replace("<!-- engines -->", "\n".join(engines_table()))


WRITTEN = {
    "commands.md": commands_page,
    "step-rewards.md": step_rewards_page,
    "guides/engines.md": engines_page,
}
"""Pages that are written by hand and leave some of their text to the code."""


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fills in what a written page leaves to the code."""
    return WRITTEN.get(page.file.src_uri, str)(markdown)
