"""Searches and comparisons on the clock: what a search costs beyond its trials, and how a comparison grows.

search    trials one after another, as jobs/search.py runs them; the first does not count, because some parts start
          only once. A trial's own time is that of its training loop: steps, validations, and the first batch's wait
compare   jobs/compare.py on generated stores of several sizes   `generated_store`
"""

import contextlib
import io
import itertools
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pipelines.benchmark.measuring.clips import find_sources
from pipelines.benchmark.measuring.prepared_data import make_data
from pipelines.benchmark.measuring.processes import new_processes, num_cores_here, start_ray
from pipelines.benchmark.measuring.rows import (
    BenchmarkRow,
    Goal,
    SuiteReport,
    describe_machine,
    suite_report,
)
from pipelines.benchmark.search.config import SearchSuiteConfig
from pipelines.benchmark.search.generated_store import ComparisonCosts, make_store, measure_comparison
from pipelines.search.config import SearchConfig
from pipelines.search.job import run_search
from pipelines.search.ledger import Ledger
from pipelines.settings.recipe import to_yaml
from pipelines.tracking.metric_log import read_curves
from pipelines.train.config import TrainConfig
from pipelines.training.run_folder import metrics_file

_MAX_OVERHEAD, _MAX_START_SECONDS = 0.10, 3.0
_MAX_COMPARE_SECONDS, _MAX_GROWTH = 20.0, 1.10
_row = partial(BenchmarkRow, "search")


class TrialTimes(NamedTuple):
    """Seconds from the end of one trial to the end of the next, and the part that its training loop took."""

    all_seconds: list[float]
    own_seconds: list[float]
    first_batch_seconds: list[float]

    def overhead(self) -> float:
        """What the search adds to its trials' own time: 0.1 is a tenth."""
        return sum(self.all_seconds) / sum(self.own_seconds) - 1

    def outside_seconds(self) -> float:
        """Median over trials of the time outside the loop: choosing, starting, logging, and saving the weights."""
        return statistics.median(a - b for a, b in zip(self.all_seconds, self.own_seconds, strict=True))

    def start_seconds(self) -> float:
        """The same with the wait for the first batch: an upper bound of the time that a trial takes to start."""
        return self.outside_seconds() + statistics.median(self.first_batch_seconds)


def run_suite(config: SearchSuiteConfig, *, repeats: int) -> SuiteReport:
    """Measure both once, because a search has several trials, and a comparison takes long."""
    lines = [describe_machine("before")]
    with tempfile.TemporaryDirectory(prefix="t3d-benchmark-") as temporary:
        sources, notes = find_sources(config.clips, Path(temporary), clips_per_folder=config.num_videos)
        name, clips = list(sources.items())[-1]
        data = make_data(name, clips, Path(temporary) / "data", num_videos=config.num_videos)
        times = measure_trials(config, data.shards, Path(temporary))
        print("measured the search", flush=True)
        comparisons = {}
        for num_runs in config.num_runs:
            folder = Path(temporary) / f"store-{num_runs}"
            folder.mkdir()
            sizes = {"num_runs": num_runs, "num_points": config.num_points, "num_tested": config.num_tested}
            tracking_uri = make_store(folder, **sizes)
            comparisons[num_runs] = measure_comparison(tracking_uri, folder)
            print(f"measured the comparison of {num_runs} runs", flush=True)
    lines += [describe_machine("after"), *notes]
    rows = [*_search_rows(times), *_comparison_rows(comparisons)]
    goals = _goals(config, times, comparisons)
    return suite_report(lines, rows, goals)


def measure_trials(config: SearchSuiteConfig, shards: Path, folder: Path) -> TrialTimes:
    """Run a search whose trials differ only in their seed, one after another."""
    base = TrainConfig(
        data={"shards": (shards,)},
        model=config.model,
        clip={"num_frames": 16, "crop_size": 64},
        global_batch_size=8,
        epochs=config.epochs,
        validate_every_epochs=config.epochs,
        schedule={"kind": "constant"},
    )
    (folder / "base.yaml").write_text(to_yaml(base))
    search = SearchConfig(
        base=folder / "base.yaml",
        space={"optimizer.lr": {"grid": [0.01]}},
        seeds=tuple(range(config.num_trials)),
        max_concurrent=1,
        storage=folder / "runs",
        name="search",
        tracking={"uri": f"sqlite:///{folder / 'mlflow.db'}"},
    )
    with new_processes(1, num_cores=num_cores_here()) as process:
        ends = process.submit(_search, search).result()
    records = Ledger(folder / "runs" / "search" / "trials.jsonl").records.values()
    own = [3600 * record.metrics["cost/worker_hours"] for record in records]
    curves = [read_curves(metrics_file(folder / "runs" / "search" / "trials" / record.name)) for record in records]
    first_batch = [of_trial["throughput/time_to_first_batch_seconds"][0][1] for of_trial in curves]
    return TrialTimes([later - earlier for earlier, later in itertools.pairwise(ends)], own[1:], first_batch[1:])


class _Clock(io.StringIO):
    """Swallows what is printed, and notes the time of each line about a trial."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def write(self, text: str) -> int:
        if text.startswith("trial "):
            self.ends.append(time.perf_counter())
        return len(text)


def _search(config: SearchConfig) -> list[float]:
    start_ray(num_cores_here())
    with contextlib.redirect_stdout(_Clock()) as clock:
        run_search(config)
    return clock.ends


def _search_rows(times: TrialTimes) -> list[BenchmarkRow]:
    return [
        _row("trial, all of it", "seconds", statistics.median(times.all_seconds), "s"),
        _row("trial, its training loop", "seconds", statistics.median(times.own_seconds), "s"),
        _row("trial, outside", "seconds", times.outside_seconds(), "s"),
        _row("trial, first batch", "seconds", statistics.median(times.first_batch_seconds), "s"),
        _row("search", "overhead", 100 * times.overhead(), "%"),
    ]


def _comparison_rows(comparisons: dict[int, ComparisonCosts]) -> list[BenchmarkRow]:
    rows = []
    for num_runs, costs in comparisons.items():
        rows.append(_row(f"compare {num_runs} runs", "seconds", costs.seconds, "s"))
        rows.append(_row(f"compare {num_runs} runs", "peak_resident", costs.peak_bytes / 1e6, "MB"))
    return rows


def _goals(config: SearchSuiteConfig, times: TrialTimes, comparisons: dict[int, ComparisonCosts]) -> list[Goal]:
    fewest, most = config.num_runs[0], config.num_runs[-1]
    growth = comparisons[most].peak_bytes / comparisons[fewest].peak_bytes
    own = statistics.median(times.own_seconds)
    return [
        Goal(f"search: overhead of trials of {own:.0f} s", times.overhead(), _MAX_OVERHEAD, True),
        Goal(
            "search: seconds outside a trial's loop and to its first batch",
            times.start_seconds(),
            _MAX_START_SECONDS,
            True,
        ),
        Goal(f"compare: seconds for {most} runs", comparisons[most].seconds, _MAX_COMPARE_SECONDS, True),
        Goal(f"compare: peak memory of {most} runs / of {fewest}", growth, _MAX_GROWTH, True),
    ]
