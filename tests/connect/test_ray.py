"""Tables made by Ray actors: byte for byte those of one process, whatever dies in the middle (`make ray`)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import stepreward
from stepreward.connect.ray_engine import DEATHS, RayEngine
from stepreward.core.errors import InputError, ModelError, ServerWarning, SteprewardError
from stepreward.core.runtime.flows import Continuation, Propose
from stepreward.core.runtime.made_in_parts import read_parts
from stepreward.core.table import row_of
from stepreward.core.types import Problem, Step
from stepreward.tasks.arithmetic import generate

ray = pytest.importorskip("ray")
# Workers cannot import a module of tests.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
PROBLEMS = [Problem(f"p{i}", f"What is {i} + 1?", reference=str(i + 1)) for i in range(40)]
LABEL = "--grader arithmetic --samples 3 --rollouts 4 --json"


@dataclass
class Guess:
    """Draws one of three answers in two steps; may end its process once, or at every question."""

    once: str = ""
    """A file: the first process that answers about `at` without this file makes it and is killed."""
    at: str = "p17"
    always: bool = False
    slow: float = 0.0
    batch_size: int = 8
    concurrency: int = 1
    name: str = "guess"

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        for one in questions:
            if one.problem.id == self.at and (self.always or (self.once and not os.path.exists(self.once))):
                if self.once:
                    Path(self.once).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.slow)
        return [[self._drawn(one, key.bits % 3) for key in one.sample_keys()] for one in questions]

    def _drawn(self, question: Propose, off: int) -> Continuation:
        number = int(question.problem.text.split()[2])
        steps = (Step(f"off by {off}\n"), Step(f"Answer: {number + 1 + off * (off > 1)}"))[len(question.prefix) :]
        return Continuation(steps, True, len(steps))


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A cluster of this machine, shared by the tests that do not start their own."""
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


def labels(engine: RayEngine | str, **guess: Any) -> list[dict[str, Any]]:
    found = stepreward.label(PROBLEMS, policy=Guess(**guess), grader="arithmetic", samples=3, n=2, engine=engine)
    return [row_of(one) for one in found]


def command(*words: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "stepreward", *map(str, words)], env={**os.environ, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def done(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    made: dict[str, Any] = json.loads(out)
    return made


def until(there: Callable[[], Any], seconds: float = 120.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := there()):
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.05)
    return found


def below(pid: int, named: str) -> list[int]:
    """Processes that a process started, and those that they started, by a part of their command line."""
    parents, lines = dict[int, int](), dict[int, str]()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            lines[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:
            continue
    found, more = set[int](), {pid}
    while more:
        found |= more
        more = {one for one, parent in parents.items() if parent in found} - found
    return [one for one in found if named in lines.get(one, "")]


def runs(pid: int) -> bool:
    """Whether a process is there, and not only waits to be buried."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_labels_and_bill_are_those_of_one_process(cluster: str) -> None:
    once = labels("")
    assert labels(RayEngine(part=4)) == once
    assert labels("ray?workers=1..3&part=7") == once


def test_a_worker_that_is_killed_costs_its_part_alone(cluster: str, tmp_path: Path) -> None:
    died = tmp_path / "died"
    assert labels(RayEngine(part=4), once=str(died)) == labels("")
    assert died.exists()


def test_a_part_that_ends_every_worker_is_named(cluster: str) -> None:
    with pytest.raises(SteprewardError, match=rf"part 4 ended {DEATHS} workers, one after the other"):
        labels(RayEngine(part=4), always=True)


def test_errors_of_workers_are_those_of_one_process(cluster: str) -> None:
    with pytest.raises(ModelError, match="not-there"):
        stepreward.label(PROBLEMS, policy="not-there/at-all", engine="ray")
    with pytest.raises(InputError, match="rolls out by a policy, and there is none"):
        stepreward.label(PROBLEMS, engine="ray", n=2)


@dataclass
class Homeless(Guess):
    """Cannot be loaded elsewhere."""

    def __reduce__(self) -> Any:
        return exec, ("import module_of_this_machine_alone",)


def test_what_workers_cannot_load_is_an_error(cluster: str) -> None:
    with pytest.raises(
        SteprewardError, match=rf"{DEATHS} workers died while they loaded .*module_of_this_machine_alone"
    ):
        stepreward.label(PROBLEMS, policy=Homeless(), grader="arithmetic", engine=RayEngine())


@dataclass
class Warns(Guess):
    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        warnings.warn("the server repeats itself", ServerWarning, stacklevel=2)
        return super().propose(questions)


def test_what_workers_warn_of_is_told_once(cluster: str) -> None:
    with pytest.warns(UserWarning, match="the server repeats itself") as told:
        stepreward.label(PROBLEMS, policy=Warns(), grader="arithmetic", samples=1, n=1, engine=RayEngine(part=8))
    assert len([one for one in told if "repeats" in str(one.message)]) == 1


@dataclass
class Notes:
    """Notes which process made which part."""

    folder: str
    slow: float = 0.1

    def __call__(self) -> Callable[[int], int]:
        return self.made

    def made(self, part: int) -> int:
        time.sleep(self.slow)
        (Path(self.folder) / f"{part}-{os.getpid()}").touch()
        return 2 * part


@pytest.mark.parametrize(("workers", "most"), [("1", 1), ("2", 2), ("1..3", 3)])
def test_as_many_workers_as_are_wanted(cluster: str, tmp_path: Path, workers: str, most: int) -> None:
    engine = RayEngine(workers=workers, cpus=0.5)
    with engine.open(Notes(str(tmp_path), 0.6)) as pool:
        assert dict(pool.made(range(18))) == {i: 2 * i for i in range(18)}
        least = engine.range[0]
        until(lambda: alive() <= least)
        # The same workers make other parts.
        assert dict(pool.made([5])) == {0: 10}
    until(lambda: alive() == 0)
    assert len({path.name.split("-")[1] for path in tmp_path.iterdir()}) == most


def alive() -> int:
    from ray.util.state import list_actors

    try:
        return sum(one.state == "ALIVE" for one in list_actors(filters=[("class_name", "=", "_PartMaker")]))
    except Exception:
        return 0


def test_score_search_and_evaluate_on_ray_are_those_of_one_process(cluster: str, tmp_path: Path) -> None:
    engine = RayEngine(part=4)
    rows = stepreward.label(PROBLEMS, policy=Guess(), grader="arithmetic", samples=3, n=2)
    for name, where in (("one", ""), ("two", engine)):
        stepreward.score(rows, "tool", out=tmp_path / f"{name}.parquet", engine=where)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    search = partial(stepreward.search, PROBLEMS, policy=Guess(), scorer="length", grader="arithmetic", budget=4)
    once, parts = search(method="best-of-n"), search(method="best-of-n", engine=engine)
    assert [row_of(replace(row, facts={**row.facts, "seconds": 0})) for one in once for row in one.rows()] == [
        row_of(replace(row, facts={**row.facts, "seconds": 0})) for one in parts for row in one.rows()
    ]
    evaluate = partial(stepreward.evaluate, rows, "length", threshold=0.5)
    assert evaluate(engine=engine).to_json() == evaluate().to_json()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, dict[str, Any]]:
    """Problems, and the table and the bill of one process."""
    folder = tmp_path_factory.mktemp("world")
    rows = [{"id": one.id, "prompt": one.text, "reference": one.reference} for one in generate("train", 32)]
    (folder / "problems.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    told = done(command("label", "--problems", folder / "problems.jsonl", "--out", folder / "one", *LABEL.split()))
    return folder / "problems.jsonl", (folder / "one" / "labels.parquet").read_bytes(), told


def on_ray(problems: Path, out: Path, *more: object) -> subprocess.Popen[str]:
    return command(
        "label", "--problems", problems, "--out", out, *LABEL.split(), "--engine", "ray", "--part-size", 4, *more
    )


def test_the_command_gives_the_same_bytes_and_the_same_bill(world: Any, cluster: str, tmp_path: Path) -> None:
    problems, table, told = world
    out = tmp_path / "two"
    found = done(on_ray(problems, out, "--address", cluster))
    assert (out / "labels.parquet").read_bytes() == table
    assert {**found, "labels": ""} == {**told, "labels": ""}


def test_one_of_two_workers_killed_in_the_middle(world: Any, tmp_path: Path) -> None:
    problems, table, told = world
    out = tmp_path / "killed"
    process = on_ray(problems, out)
    until(lambda: list(out.glob("labels-*.parquet")))
    workers = below(process.pid, "ray::_PartMaker")
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    found = done(process)
    assert (out / "labels.parquet").read_bytes() == table
    assert found["bill"] == told["bill"]


def test_the_driver_killed_and_run_again(world: Any, tmp_path: Path) -> None:
    problems, table, told = world
    out = tmp_path / "driver"
    process = on_ray(problems, out)
    until(lambda: list(out.glob("labels-*.parquet")))
    cluster_of_it = below(process.pid, "raylet") + below(process.pid, "ray::")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("labels-*.parquet")}
    assert 0 < len(kept) < 8
    # Nothing of its cluster outlives it.
    until(lambda: not any(runs(pid) for pid in cluster_of_it))
    found = done(on_ray(problems, out))
    assert (out / "labels.parquet").read_bytes() == table
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert 0 < found["bill"]["proposals"] < told["bill"]["proposals"]
    assert found["trajectories"] == told["trajectories"]


def test_commands_score_search_and_evaluate(world: Any, cluster: str, tmp_path: Path) -> None:
    problems, table, _ = world
    (tmp_path / "labels.parquet").write_bytes(table)
    where = ["--engine", "ray", "--address", cluster, "--part-size", "16"]
    rows = ["--data", tmp_path / "labels.parquet", "--model", "tool"]
    for name, more in (("one", []), ("two", where)):
        process = command("score", *rows, "--out", tmp_path / f"{name}.parquet", *more)
        assert process.wait() == 0
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert done(command("evaluate", *rows, "--json", *where)) == done(command("evaluate", *rows, "--json"))
    search = [
        "search",
        "--problems",
        problems,
        "--grader",
        "arithmetic",
        "--method",
        "majority",
        "--samples",
        "3",
        "--json",
    ]
    once, parts = (
        done(command(*search, "--out", tmp_path / f"{name}.jsonl", *more)) for name, more in (("a", []), ("b", where))
    )
    assert {**once, "out": ""} == {**parts, "out": ""}
    found = [[json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()] for name in "ab"]
    for row in [*found[0], *found[1]]:
        facts = json.loads(row["facts"])
        row["facts"] = {**facts, "seconds": 0}
    assert found[0] == found[1]
    assert len([*read_parts(tmp_path / "b.jsonl.parts", "found")]) == len(found[1])


def test_an_address_where_no_cluster_is() -> None:
    process = command("score", "--data", "x.jsonl", "--out", "y.parquet", "--model", "tool", "--engine", "ray")
    _, err = process.communicate()
    assert process.returncode == 1
    assert "x.jsonl" in err
