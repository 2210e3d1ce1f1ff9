"""The server's counters, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from stepreward.core.runtime.spending import Bill

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters and clocks of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("stepreward_requests", "Requests answered", ["route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "stepreward_request_seconds", "From a request's first byte to its answer's last", ["route"],
            buckets=BUCKETS, registry=self.registry,
        )  # fmt: skip
        self.left = Counter("stepreward_clients_left", "Requests whose client left", registry=self.registry)
        self.stopped = Counter(
            "stepreward_searches_stopped", "Searches ended by a limit", ["limit"], registry=self.registry
        )
        self.tokens = Counter("stepreward_tokens", "Tokens spent", ["kind"], registry=self.registry)
        self.steps = Counter("stepreward_steps_scored", "Steps scored", registry=self.registry)

        self.verdicts = Counter("stepreward_verdicts", "Verdicts of the monitor", ["action"], registry=self.registry)

    def watch(self, name: str, about: str, value: Callable[[], float]) -> None:
        """Adds a gauge, whose function is called at each read."""
        Gauge(f"stepreward_{name}", about, registry=self.registry).set_function(value)

    def spend(self, bill: Bill) -> None:
        """Counts what a request spent."""
        self.tokens.labels("generated").inc(bill.generated_tokens)
        self.tokens.labels("prompt").inc(bill.prompt_tokens)
        self.tokens.labels("scored").inc(bill.scored_tokens)
        self.steps.inc(bill.scored_steps)

    def text(self) -> bytes:
        """All counters in Prometheus' format."""
        return generate_latest(self.registry)
