"""What a search prints: a line per trial as it ends, and a table of its points at the end."""

import json
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.runtime.text_table import format_table
from pipelines.search.config import REPLICATES, SearchConfig
from pipelines.search.ledger import Ledger, TrialRecord
from pipelines.settings.terminal import format_summary
from pipelines.tracking.runs import Run

TESTED = "test/video_top1"


class PointResult(NamedTuple):
    """One point over its seeds; only trials that ended count.

    `values` and `tested` have one entry for each seed, the mean over the folds if the space has these.
    """

    number: int
    label: str
    values: list[float]
    tested: list[float]
    metrics: Mapping[str, float]
    hours: float
    num_others: int


def describe_trial(record: TrialRecord, ledger: Ledger, config: SearchConfig) -> str:
    """One line about a trial that has ended, stopped or failed."""
    over = len(ledger.of_state("ended", "stopped", "failed"))
    what = f"trial {over}: {record.point.label}, seed {record.seed}"
    if record.state == "failed":
        return f"{what}: failed, {record.reason}"
    metric = config.watched_metric()
    found = [f"{name} {record.metrics[name]:.3f}" for name in dict.fromkeys((metric, TESTED)) if name in record.metrics]
    costs = [f"{record.metrics['model/gmacs']:.3g} GMAC"] if "model/gmacs" in record.metrics else []
    stopped = [record.reason] if record.state == "stopped" else []
    return f"{what}: {', '.join([*found, *costs, f'{record.hours * 3600:.0f} s', *stopped])}"


def point_results(ledger: Ledger, config: SearchConfig) -> list[PointResult]:
    """The points that were trained, best first; points without an ended trial come last."""
    results = []
    for records in _repetitions(ledger):
        ended = [record for record in records if record.state == "ended"]
        results.append(
            PointResult(
                records[0].point_number,
                records[0].point.label_of_repetitions,
                _by_seed(ended, config.watched_metric()),
                _by_seed(ended, TESTED),
                ended[0].metrics if ended else {},
                sum(record.hours for record in records),
                len(records) - len(ended),
            )
        )
    sign = -1 if config.is_more_better() else 1
    return sorted(results, key=lambda result: sign * np.mean(result.values) if result.values else np.inf)


def _repetitions(ledger: Ledger) -> list[list[TrialRecord]]:
    """The trials of each point that were trained: its seeds, and its folds, which are points of the space."""
    groups: dict[str, list[TrialRecord]] = defaultdict(list)
    for record in sorted(ledger.records.values(), key=lambda record: record.point_number):
        values = {name: value for name, value in record.point.values.items() if name not in REPLICATES}
        is_in_folds = len(values) < len(record.point.values)
        if record.state != "rejected":
            groups[json.dumps(values) if is_in_folds else str(record.point_number)].append(record)
    return list(groups.values())


def _by_seed(records: Sequence[TrialRecord], metric: str) -> list[float]:
    """A value for each seed that has the metric: the mean over its trials."""
    of_seed: dict[int, list[float]] = defaultdict(list)
    for record in records:
        if metric in record.metrics:
            of_seed[record.seed].append(record.metrics[metric])
    return [float(np.mean(values)) for values in of_seed.values()]


def describe_search(ledger: Ledger, config: SearchConfig, *, table: Path, registered: str | None, run: Run) -> str:
    """The points as a table, the trials without a result and why, and where everything lies."""
    results = point_results(ledger, config)
    metric = config.watched_metric()
    header = ["point", "n", metric, *([TESTED] if config.test else []), "GMAC", "parameters", "hours"]
    rows = [
        [
            result.label,
            f"{len(result.values)}" + (f" (+{result.num_others} not ended)" if result.num_others else ""),
            mean_and_spread(result.values),
            *([mean_and_spread(result.tested)] if config.test else []),
            f"{result.metrics['model/gmacs']:.3g}" if "model/gmacs" in result.metrics else "",
            f"{result.metrics['model/parameters']:,.0f}" if "model/parameters" in result.metrics else "",
            f"{result.hours:.2f}",
        ]
        for result in results
    ]
    lines = format_table(header, rows)
    fields = []
    for state in ("rejected", "failed", "stopped"):
        of_state = [record for record in ledger.records.values() if record.state == state]
        if of_state:
            shown = "; ".join(f"{record.point.label}: {record.reason}" for record in of_state[:3])
            fields.append((state, f"{len(of_state)}, {shown}{' ...' if len(of_state) > 3 else ''}"))
    if interrupted := ledger.unfinished():
        resume = f"to resume them, give a larger budget and --name {table.parent.name}"
        fields.append(("waiting", f"{len(interrupted)} trials interrupted by the budget; {resume}"))
    experiment = (
        "" if config.tracking.experiment == "t3d" else f" --experiment {shlex.quote(config.tracking.experiment)}"
    )
    fields += [
        ("trials", str(table)),
        *([("model", registered)] if registered else []),
        ("mlflow", run.describe()),
        ("next", f"python jobs/compare.py --runs {shlex.quote(table.parent.name)}{experiment}"),
    ]
    return "\n".join([*lines, format_summary(fields)])


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds; for a single seed, only its value."""
    if not values:
        return "-"
    spread = f" +- {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"
