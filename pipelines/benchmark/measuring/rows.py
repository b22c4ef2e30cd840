"""Runs are timed in turns; the measurements become rows, a table and verdicts on goals."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from pipelines.runtime.text_table import format_table

NameT = TypeVar("NameT")


class BenchmarkRow(NamedTuple):
    """One figure; `ratio` is how many times better than the `baseline` case it is (2.0: half the cost).

    `value` is None if nothing could be measured; `note` then has the reason.
    """

    suite: str
    case: str
    metric: str
    value: float | None
    unit: str
    baseline: str | None = None
    ratio: float | None = None
    note: str | None = None


class Goal(NamedTuple):
    """A limit and the measured figure; `figure` is None if nothing could be measured."""

    text: str
    figure: float | None
    limit: float
    is_lower_better: bool = False

    @property
    def verdict(self) -> str:
        """`met`, `missed` or `not measured`."""
        if self.figure is None:
            return "not measured"
        is_met = self.figure <= self.limit if self.is_lower_better else self.figure >= self.limit
        return "met" if is_met else "missed"


class SuiteReport(NamedTuple):
    """The result of a suite: its rows, the text to print, and files by name."""

    rows: list[BenchmarkRow]
    text: str
    files: Mapping[str, bytes] = MappingProxyType({})


def alternating_seconds(
    runs: Mapping[NameT, Callable[[], object]],
    *,
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
    is_warmed: bool = False,
) -> dict[NameT, list[float]]:
    """Seconds of every run in `repeats` rounds in which all take turns, after an uncounted round of warm-up.

    A busy moment of the machine then affects all of them alike. `clock` may be `time.process_time`: the processor time
    of all threads, which other processes do not change. With `is_warmed`, every run is made once untimed just before.
    Memory and caches are then as if only this run were repeated.
    """

    def seconds(run: Callable[[], object]) -> float:
        if is_warmed:
            run()
        return _seconds(run, clock)

    rounds = [{name: seconds(run) for name, run in runs.items()} for _ in range(1 + repeats)]
    return {name: [each[name] for each in rounds[1:]] for name in runs}


def median_rates(seconds: Mapping[NameT, Sequence[float]], *, amount: float) -> dict[NameT, float]:
    """`amount` (samples of one run, say) a second, at the median of its rounds."""
    return {name: amount / statistics.median(rounds) for name, rounds in seconds.items()}


def median_ratio(reference: Sequence[float], rounds: Sequence[float]) -> float:
    """How many times faster than the reference: the median of the ratios of each round."""
    return statistics.median(slow / fast for slow, fast in zip(reference, rounds, strict=True))


def quotient(value: float | None, reference: float | None) -> float | None:
    """Value / reference; None if either could not be measured."""
    return None if value is None or reference is None else value / reference


def suite_report(lines: Sequence[str], rows: list[BenchmarkRow], goals: Sequence[Goal]) -> SuiteReport:
    """The report of a suite without its own tables: `lines` about the conditions, all rows, verdicts on goals."""
    return SuiteReport(rows, "\n".join([*lines, "", format_rows(rows), "", format_goals(goals)]))


def format_rows(rows: Sequence[BenchmarkRow]) -> str:
    """The rows as lines of text, grouped by metric, best ratio first."""
    metrics = list(dict.fromkeys(row.metric for row in rows))
    ordered = sorted(rows, key=lambda row: (metrics.index(row.metric), -(row.ratio or 1.0)))
    header = ["metric", "case", "value", "unit", "better than the baseline by"]
    cells = [
        [
            row.metric,
            row.case,
            "-" if row.value is None else f"{row.value:.5g}",
            row.unit,
            row.note or ("baseline" if row.ratio is None else f"{row.ratio:.2f}x"),
        ]
        for row in ordered
    ]
    return "\n".join(format_table(header, cells, align="<<><<"))


def format_goals(goals: Sequence[Goal]) -> str:
    """One line per goal: what, the figure, the limit, the verdict."""
    cells = [
        [
            goal.text,
            "-" if goal.figure is None else f"{goal.figure:.2f}",
            f"{'<=' if goal.is_lower_better else '>='} {goal.limit:g}",
            goal.verdict,
        ]
        for goal in goals
    ]
    return "\n".join(format_table(["goal", "figure", "limit", "verdict"], cells, align="<>><"))


def describe_machine(when: str) -> str:
    """Processor, cores and load, in one line."""
    load = " ".join(f"{average:.2f}" for average in os.getloadavg())
    return f"machine {when}: {_processor()}, {os.cpu_count()} cores, load {load}, {time.strftime('%Y-%m-%d %H:%M')}"


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _seconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return clock() - start
