"""Runs that differ only in seed and fold become a row.

A value is the accuracy of one seed: the mean over its folds if it was trained on several. Only `group_by` joins runs
that differ in more, and then a note lists the differences.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from pipelines.compare.measured import Measured, differing_settings
from pipelines.compare.paper_tables import PaperRow, PaperTable

_CONFIDENCE = 0.95
Unit = dict[str, Measured]  # one seed of one kind of run: by fold


@dataclass(frozen=True)
class Row:
    """One group of runs.

    Attributes:
        label: its name, which no other row has.
        paper: the paper's line for it; None if the paper has none.
        runs: its runs, by seed and fold; of equal ones the newest.
        values: one per seed (and per setting, if settings are pooled), in the order of seeds.
        seeds: their seeds.
        folds: the folds over which each value is the mean.
    """

    label: str
    paper: PaperRow | None
    runs: tuple[Measured, ...]
    values: tuple[float, ...]
    seeds: tuple[str, ...]
    folds: tuple[str, ...]

    @property
    def mean(self) -> float:
        """Over seeds."""
        return float(np.mean(self.values))

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds; None for a single seed."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean over all seeds (Student's t); None for a single seed.

        With few seeds it is wide, and may exceed the range of an accuracy.
        """
        if self.spread is None:
            return None
        half = stats.t.ppf((1 + _CONFIDENCE) / 2, len(self.values) - 1) * self.spread / len(self.values) ** 0.5
        return self.mean - half, self.mean + half

    @property
    def is_baseline(self) -> bool:
        """Whether its value is the same for every seed, because no network was trained."""
        return self.runs[0].is_baseline

    def metric(self, name: str) -> float | None:
        """Mean over runs of a metric of training or testing; None if no run has it."""
        found = [
            metrics[name]
            for each in self.runs
            for metrics in (each.run.metrics, each.test.metrics if each.test else {})
            if name in metrics
        ]
        return float(np.mean(found)) if found else None

    def hours(self) -> tuple[float, str]:
        """The cost of all its runs, in GPU-hours if they had GPUs, else in CPU-hours."""
        if any(each.run.params.get("scaling.use_gpu") == "True" for each in self.runs):
            return sum(each.run.metrics.get("cost/worker_hours", 0.0) for each in self.runs), "GPU"
        cpus = [float(each.run.params.get("scaling.resources_per_worker.CPU", "1")) for each in self.runs]
        hours = [each.run.metrics.get("cost/worker_hours", 0.0) for each in self.runs]
        return float(np.dot(cpus, hours)), "CPU"


def group_runs(measured: Sequence[Measured], pooled_by: Sequence[str]) -> tuple[list[list[Unit]], int]:
    """The runs of each row, as lists of seeds; and how many were left out because a newer run is equal.

    Without `pooled_by`, and in a row of baselines, all runs have the same settings. Seeds of different folds are never
    joined.
    """
    units: dict[tuple[str, str], Unit] = defaultdict(dict)
    num_older = 0
    for each in measured:  # the oldest first, so that a newer one replaces it
        unit = units[json.dumps(each.settings, sort_keys=True), each.run.params.get("seed", "0")]
        fold = each.run.params.get("data.fold", "1")
        num_older += fold in unit
        unit[fold] = each
    groups: dict[tuple[object, ...], list[Unit]] = defaultdict(list)
    for (settings, _), unit in units.items():
        first = next(iter(unit.values()))
        is_pooled = bool(pooled_by) and not first.is_baseline
        key = tuple(first.facts.get(axis, "-") for axis in pooled_by) if is_pooled else (settings,)
        groups[key, tuple(sorted(unit))].append(unit)
    return list(groups.values()), num_older


def make_row(group: Sequence[Unit], axes: Sequence[str], table: PaperTable | None) -> Row:
    """Make a row of the seeds of one group, named after its line of the paper, else after its values of `axes`."""
    group = sorted(group, key=lambda unit: next(iter(unit.values())).run.params.get("seed", "0"))
    runs = [unit[fold] for unit in group for fold in sorted(unit)]
    facts = runs[0].facts
    paper = _paper_row(facts, table)
    named = ("family", "model", "init", "dataset", "point")
    if runs[0].is_baseline and facts["point"]:  # it has none of the settings of a network
        axes = ("point",)
    label = ", ".join(
        facts.get(axis, "-") if axis in named else f"{axis.rpartition('.')[2]}={facts.get(axis, '-')}" for axis in axes
    )
    values = tuple(float(np.mean([each.value for each in unit.values()])) for unit in group)
    seeds = tuple(next(iter(unit.values())).run.params.get("seed", "0") for unit in group)
    return Row(
        paper.label if paper else label or "all runs", paper, tuple(runs), values, seeds, tuple(sorted(group[0]))
    )


def with_distinct_labels(rows: Sequence[Row]) -> list[Row]:
    """Rows with the same label get the settings in which they differ, or a number, added to it."""
    by_label: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_label[row.label].append(row)
    return [replace(row, label=_distinct_label(row, by_label[row.label])) for row in rows]


def _distinct_label(row: Row, alike: Sequence[Row]) -> str:
    """The label of a row, with what distinguishes it from `alike`, the rows with that label."""
    if len(alike) == 1:
        return row.label
    first = row.runs[0]
    names = differing_settings([each.runs[0] for each in alike])
    parts = [f"{name.rpartition('.')[2]}={first.settings.get(name, first.facts.get(name, '-'))}" for name in names]
    if len({each.folds for each in alike}) > 1:
        parts.append(f"folds {' '.join(row.folds)}")
    return ", ".join([row.label, *(parts or [f"no. {alike.index(row) + 1}"])])


def _paper_row(facts: Mapping[str, str], table: PaperTable | None) -> PaperRow | None:
    for row in table.rows if table else ():
        if all(facts.get(name) == value for name, value in row.match.items()):
            return row
    return None
