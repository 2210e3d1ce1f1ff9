"""What the registry says of each format: its fields' meaning, and every option with its default, in Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

from stepreward.formats.format import Format
from stepreward.formats.registry import formats

_ARGUMENT = re.compile(r"^    (\w+): (.*(?:\n     +.*)*)", re.MULTILINE)


def formats_table() -> str:
    """One line a format: name, what it holds, whether it can be written, and the options of its reader."""
    lines = []
    width = max(map(len, formats))
    for name, form in sorted(formats.items()):
        lines.append(f"{name:{width}}  {form.about} ({form.kind}{'' if form.write else ', read only'})")
        for label, function in (("--read", form.read), ("--write", form.write)):
            options = form.options(function) if function else {}
            spelled = " ".join(f"{key}={_spelled(value)}" for key, value in options.items())
            lines += [f"{'':{width}}  {label} {spelled}"] if options else []
    return "\n".join(lines)


def formats_page() -> str:
    """Every format with its layout and its options, as a page of the documentation."""
    lines = [_HEAD, "| format | holds | kind | |", "|---|---|---|---|"]
    for name, form in sorted(formats.items()):
        ways = "reads and writes" if form.write else "reads"
        lines.append(f"| [`{name}`](#{name}) | {form.about} | {form.kind} | {ways} |")
    for _, form in sorted(formats.items()):
        lines += ["", *_section(form)]
    return "\n".join(lines) + "\n"


_HEAD = """# Formats

Every public format that stepreward reads and writes, from the registry in `stepreward.formats.registry`.

    stepreward convert IN OUT --to NAME --read neutral=wrong --write threshold=0.3

The format of a file is found by the fields of its first rows and reported with that evidence; rows that fit several
formats are an error until `--from` names one. Labels are numbers in [0, 1], 1 for right; what a data set does not say
is not measured, never 0. `stepreward` is our own [table](table.md), which keeps all that is known of a trajectory.

Each option below changes how a reader or writer treats what formats disagree on.
"""


def _section(form: Format) -> Iterator[str]:
    yield f"## {form.name}"
    yield ""
    # The docstring up to its arguments, as one paragraph.
    summary = (inspect.getdoc(form.read) or "").split("\nArgs:")[0].split("\nRaises:")[0]
    yield f"{form.about[0].upper()}{form.about[1:]}. {' '.join(summary.split())}"
    for title, function in (("read", form.read), ("write", form.write)):
        if function is None or not form.options(function):
            continue
        meanings = dict(_ARGUMENT.findall(inspect.getdoc(function) or ""))
        hints = get_type_hints(function)
        yield ""
        yield f"| --{title} | default | meaning |"
        yield "|---|---|---|"
        for name, default in form.options(function).items():
            meaning = " ".join(meanings.get(name, "").split())
            yield f"| `{name}` | `{_spelled(default)}` | {meaning}{_choices(hints[name])} |"


def _choices(hint: Any) -> str:
    options = [option for kind in (hint, *get_args(hint)) if get_origin(kind) is Literal for option in get_args(kind)]
    return f" Choices: {', '.join(f'`{option}`' for option in options)}." if options else ""


def _spelled(value: object) -> str:
    """A default as it is written on the command line."""
    if isinstance(value, str):
        return (value if value.isprintable() else value.encode("unicode_escape").decode()) or "''"
    return str(value).lower()
