"""What every benchmark returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from stepreward.core.files.atomic_files import plain
from stepreward.core.html_table import html_table
from stepreward.core.measure.statistics import Estimate
from stepreward.core.optional import optional

_HEAD = ("group", "metric", "value", "low", "high")


@dataclass(frozen=True)
class BenchResult:
    """Metrics of one scorer on one benchmark, with intervals and the protocol by which they were measured.

    Raises:
        ValueError: `main` is not among the metrics.
    """

    benchmark: str
    """Registered name."""
    main: str
    """Name of the metric that the benchmark is quoted by."""
    metrics: Mapping[str, Estimate]
    """Over all of the data; shares in [0, 1]."""
    protocol: str
    """One or two sentences: what counts as right, who averages over what, how ties go."""
    groups: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    """The same metrics by category, where the benchmark has categories."""
    threshold: float | None = None
    """Scores at or below it say "wrong"; None where no threshold is used."""
    threshold_from: str = ""
    """Where the threshold comes from."""
    unscored: int = 0
    """Rows that the scorer gave no score where one was needed: no part of any number here, neither right nor wrong."""

    def __post_init__(self) -> None:
        if self.main not in self.metrics:
            raise ValueError(f"main metric {self.main!r} is not measured; there are {', '.join(self.metrics)}")

    def __repr__(self) -> str:
        main = self.metrics[self.main]
        interval = f"{self.main} {main.value:.3g} [{main.low:.3g}, {main.high:.3g}]"
        more = f"; {self.unscored:,} rows unscored" if self.unscored else ""
        counts = f"{len(self.metrics)} metrics, {len(self.groups)} groups"
        return f"<BenchResult of {self.benchmark}: {interval}, {counts}{more}>"

    def _repr_html_(self) -> str:
        return html_table(_HEAD, self._rows(), caption=f"{self.benchmark}. {self.protocol}")

    def to_pandas(self) -> Any:
        """A pandas data frame with one row a group and metric; the group "" is all data.

        Raises:
            ModelError: pandas is not installed.
        """
        return optional("pandas").DataFrame(self._rows(), columns=_HEAD)

    def _rows(self) -> Iterator[tuple[str, str, float, float, float]]:
        for group, metrics in {"": self.metrics, **self.groups}.items():
            for name, one in metrics.items():
                yield group, name, one.value, one.low, one.high

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, NaN as None."""
        made: dict[str, Any] = plain(asdict(self))
        return made
