"""What several commands read: problems, and solutions of any format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from stepreward.cli.flags.format_options import format_options
from stepreward.cli.terminal.left_out import tell_blank, tell_left_out
from stepreward.core.errors import InputError
from stepreward.core.failures import Failures
from stepreward.core.types import Trajectory
from stepreward.core.vocabulary import Flag
from stepreward.formats.preferences.as_solutions import as_solutions
from stepreward.formats.registry import (
    Evidence,
    Item,
    Reading,
    by_name,
    detect,
    evidence,
    formats,
    read,
    read_comparisons,
)
from stepreward.score.encode.recipe_text import valid
from stepreward.verbs.read_rows import unread


@dataclass(frozen=True)
class ReadFlags:
    """How the rows of a command's data are read."""

    form: Annotated[str, Flag("--format")] = ""
    """Format of the data; detected where left out."""
    read: Annotated[tuple[str, ...], Flag("--read")] = ()
    """Option of the source's format as name=value, such as neutral=wrong; repeatable."""
    strict: bool = False
    """End with an error at the first bad row instead of leaving it out."""

    def solutions(
        self,
        path: Path,
        failed: Failures | None = None,
        *,
        prepared: Callable[[Trajectory], Trajectory] = lambda one: one,
        quiet: bool = False,
        comparisons: bool = False,
    ) -> Iterator[Trajectory]:
        """Yields the solutions of a file of any format, or of the folder of a label run.

        Rows that cannot be read are left out, unless `strict`.

        Args:
            path: the file or folder.
            failed: gets the rows left out, once all are read; where None, standard error names them.
            prepared: what is yielded of a solution; an InputError makes it a bad row.
            quiet: do not name them.
            comparisons: of a file of comparisons, the candidates are yielded; such a file is refused otherwise.

        Raises:
            InputError: nothing can be read, or a row cannot be and `strict`.
        """
        chosen = by_name(self.form) if self.form else detect(path)
        options = format_options(chosen, chosen.read, self.read)
        if comparisons and chosen.kind == "comparisons":
            pairs = read_comparisons(path, chosen.name, strict=self.strict, **options)
            reading: Reading[Any] = pairs
            items = as_solutions(filled(pairs))
        else:
            reading = read(path, chosen.name, strict=self.strict, **options)
            items = filled(reading)
        found = False
        broken = list[InputError]()
        for item in items:
            try:
                for text in (item.problem.text, item.text):
                    valid(text)
                ready = prepared(item)
            except InputError as error:
                located = InputError(error.problem, source=path, row=reading.number, remedy=error.remedy)
                if self.strict:
                    raise located from error
                broken.append(located)
                continue
            found = True
            yield ready
        lost = unread(reading)
        if not found:
            first, more = broken[0], len(broken) + lost.total - 1
            what = first.problem + (f", and {more:,} more rows are bad" if more else "")
            raise InputError(what, source=path, row=first.row, remedy=first.remedy or "repair the rows")
        lost += [(f"row {error.row}", error) for error in broken]
        if failed is not None:
            failed.join(lost)
        elif not quiet:
            tell_left_out(lost)
        if not quiet:
            tell_blank(reading.blank)


def filled(reading: Reading[Item]) -> Iterator[Item]:
    """The items of a file.

    Raises:
        InputError: there is none.
    """
    found = False
    for item in reading:
        found = True
        yield item
    if not found:
        raise InputError("no row is here", source=reading.path, remedy="check the path")


def shown_format(path: Path, form: str = "") -> str:
    """The format that a file is read as, with the evidence.

    Raises:
        InputError: no format fits, or several do.
        UnknownNameError: no such format.
    """
    found: Evidence | str = evidence(path) if not form else f"{by_name(form).name} ({formats[form].about}): as named"
    return str(found)
