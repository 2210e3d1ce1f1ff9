"""The flows of a run's stages: those that fail are counted, told and left out, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from stepreward.core.errors import SteprewardError
from stepreward.core.failures import Failure, shown_failure
from stepreward.core.files.atomic_files import read_object, write_json
from stepreward.core.runtime.driver import Driver, Failed
from stepreward.core.runtime.flows import Flow
from stepreward.pipeline.folder import RunFolder

T = TypeVar("T")
Progress = Callable[[int, int, str], None]
MOST_FAILED = 0.5
"""Share of a stage's flows that may fail: where more do, what is left is no fair sample of what was asked."""
_END = "-failures.json"


@dataclass(frozen=True)
class FlowRuns:
    """Runs the flows of one stage, and remembers in the run's folder which of them failed.

    What failed stays failed where the run is resumed: stages that are finished counted it so.
    """

    stage: str
    """Name among the stages of the run."""
    folder: RunFolder
    driver: Driver
    progress: Progress

    def results(self, named: Sequence[tuple[str, Flow[T]]]) -> list[T | None]:
        """Runs flows to their ends and returns their results in the order given, None for each that failed.

        Args:
            named: each flow with the id of its problem.

        Raises:
            SteprewardError: more than `MOST_FAILED` of them failed, or as many in a row as end a driver.
        """
        path = self.folder.path / "stages" / f"{self.stage}{_END}"
        again = "delete this one file and run again, which tries again what failed"
        kept: dict[str, Any] = read_object(path, remedy=again)["failed"] if path.exists() else {}
        results: list[T | None] = [None] * len(named)
        places = [at for at in range(len(named)) if str(at) not in kept]
        failed: list[Failure] = []
        try:
            for done, one in enumerate(self.driver.outcomes(named[at][1] for at in places), 1):
                at = places[one.index]
                if isinstance(one, Failed):
                    failed.append((named[at][0], one.error))
                    kept[str(at)] = shown_failure(failed[-1])
                    if len(kept) > MOST_FAILED * len(named):
                        self._end(failed, len(kept), len(named))
                else:
                    results[at] = one.result
                bill = self.driver.bill
                lost = f", {len(kept):,} failed" if kept else ""
                told = f"{bill.generated_tokens:,} tokens, {bill.cached:,} answers from the log{lost}"
                self.progress(len(named) - len(places) + done, len(named), told)
        except SteprewardError as error:
            if failed and error is failed[-1][1]:
                self._end(failed, len(kept), len(named))
            raise
        if kept:
            write_json(path, {"failed": kept, "of": len(named)})
        return results

    def _end(self, failed: Sequence[Failure], lost: int, total: int) -> NoReturn:
        raise SteprewardError(
            f"{self.stage}: {lost:,} of {total:,} failed, and a run goes on only while others succeed and no more than "
            f"{MOST_FAILED:.0%} of a stage fail; {shown_failure(failed[0])}. Mend that and run the same command again: "
            "what was answered is kept, and what failed is tried again"
        ) from failed[0][1]


def failures_of(folder: RunFolder) -> dict[str, dict[str, Any]]:
    """What failed in a run so far, by stage: how many flows `failed`, `of` how many, and the `first` with its error."""
    made = {}
    for path in sorted((folder.path / "stages").glob(f"*{_END}")):
        found = read_object(path, remedy="delete this one file and run again, which tries again what failed")
        lost = found["failed"]
        made[path.name.removesuffix(_END)] = {
            "failed": len(lost),
            "of": found["of"],
            "first": lost[min(lost, key=int)],
        }
    return made
