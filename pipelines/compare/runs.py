"""Runs in MLflow become a table: rows of runs that differ only in seed and fold, best first, and notes."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipelines.compare.config import CompareConfig
from pipelines.compare.measured import (
    BASELINE,
    TESTED,
    VALIDATED,
    Measured,
    differing_settings,
    find_tests,
    measure,
)
from pipelines.compare.notes import differences_from_paper, fixed_rows, left_out, seen_before, unevenness
from pipelines.compare.paper_tables import TABLES, PaperTable
from pipelines.compare.reference import Reference, choose_reference
from pipelines.compare.rows import Row, group_runs, make_row, with_distinct_labels
from pipelines.tracking.recorded import RecordedRun, find_runs
from pipelines.transfer.config import KEYS, PAIRS, PROBED
from t3d_core.errors import UserError


@dataclass(frozen=True)
class Comparison:
    """Rows, and notes for their reader.

    Attributes:
        title: of the table.
        metric: what is compared.
        rows: best first.
        reference: the row that the others are compared with.
        table: that of the paper; None without one.
        notes: how the runs differ from the paper's, what was left out, what is missing.
    """

    title: str
    metric: str
    rows: tuple[Row, ...]
    reference: Reference
    table: PaperTable | None
    notes: tuple[str, ...] = field(default=())


def compare_runs(config: CompareConfig, *, tracking_uri: str) -> Comparison:
    """Read the runs and group them.

    Raises:
        UserError: the experiment or a named run is not in the store, nothing in it can be compared, or the
            reference names no row.
    """
    experiment = config.experiment or config.tracking.experiment
    runs = find_runs(tracking_uri, experiment=experiment)
    stages = ("train", BASELINE) if config.stage == "train" else (config.stage,)
    chosen = _chosen([run for run in runs if run.tags.get("stage") in stages], runs, config.runs)
    ended = [run for run in chosen if run.status == "FINISHED"]
    if not ended:
        states = ", ".join(f"{count} {state}" for state, count in Counter(run.status for run in chosen).items())
        raise UserError(
            f"experiment {experiment!r} in {tracking_uri} has no {config.stage} run that ended"
            f"{f' ({states})' if states else ''}: train first, or name another --experiment"
        )
    by_id = {run.run_id: run for run in runs}
    tests, notes_of_tests = find_tests(runs, {run.run_id for run in ended})
    metric = config.metric or _usual_metric(config.stage, ended, is_tested=bool(tests))
    measured = [measure(run, tests.get(run.run_id), by_id, metric) for run in ended]
    table = TABLES[config.table] if config.table is not None else None
    comparable = [each for each in measured if each is not None]
    if not comparable:
        known = sorted({name for run in ended for name in run.metrics})
        raise UserError(f"no run has the metric {metric}; there are: {', '.join(known)}")
    axes = table.axes if table else tuple(config.group_by) or _usual_axes(comparable)
    groups, num_older = group_runs(comparable, axes if config.group_by else ())
    rows = with_distinct_labels([make_row(group, axes, table) for group in groups])
    reference = choose_reference(rows, config.reference, table)
    sign = -1 if is_more_better(metric) else 1
    rows.sort(key=lambda row: (math.isnan(row.mean), sign * row.mean))  # NaN comes last
    notes = [
        *seen_before(rows),
        *(differences_from_paper(rows, table) if table else ()),
        *left_out(chosen, ended, num_without=len(ended) - len(comparable), metric=metric, num_older=num_older),
        *notes_of_tests,
        *unevenness(rows),
        *fixed_rows(rows),
    ]
    title = f"Table {config.table}: {table.title}" if table else f"{experiment}, by {', '.join(axes) or 'nothing'}"
    return Comparison(title, metric, tuple(rows), reference, table, tuple(notes))


def is_more_better(metric: str) -> bool:
    """Whether more of a metric is better, as for accuracies, but not for losses and costs."""
    return not metric.endswith("loss") and not metric.startswith(("cost/", "model/"))


def _chosen(of_stage: list[RecordedRun], runs: list[RecordedRun], named: Sequence[str]) -> list[RecordedRun]:
    if not named:
        return of_stage
    chosen: dict[str, RecordedRun] = {}
    for name in named:
        ids = {run.run_id for run in runs if name in (run.run_id, run.name)}
        found = [run for run in of_stage if run.run_id in ids or run.parent_id in ids]
        if not found:
            raise UserError(f"runs: no run, and no search with trials, is called {name!r} in this experiment")
        chosen |= {run.run_id: run for run in found}
    return list(chosen.values())


def _usual_metric(stage: str, runs: Sequence[RecordedRun], *, is_tested: bool) -> str:
    if stage == "transfer":  # pairs are often judged by what features do not keep
        known = {name for run in runs for name in run.metrics}
        return next((name for name in (PROBED, PAIRS) if name in known), KEYS)
    return TESTED if is_tested else VALIDATED


def _usual_axes(measured: Sequence[Measured]) -> tuple[str, ...]:
    """The points of a search if every run has one, else the settings in which networks differ."""
    if all(each.facts["point"] for each in measured):
        return ("point",)
    return differing_settings([each for each in measured if not each.is_baseline])
