"""Runs that MLflow has become the rows of a table: groups of runs that differ in their seed (and fold) alone.

A value is the accuracy of one seed: the mean over its folds where it was trained on several.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from pipelines import tracking
from pipelines.compare_configs import CompareConfig
from pipelines.paper_tables import TABLES, PaperRow, PaperTable, family_of
from pipelines.tracking import RecordedRun

TESTED, VALIDATED, PAIRS = "video_top1", "val/clip_top1", "check/pair_accuracy"
# Parameters that say where and how a run was made, not what it is, and sections of such.
_NOT_SETTINGS = (
    *("seed", "name", "storage", "folds", "register", "alias", "log_every_steps", "data.fold"),
    *("data.shards", "data.prepare", "data.fingerprint", "tracking", "scaling", "checkpoint", "failure"),
)
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Measured:
    """One run, and the test of its weights.

    Attributes:
        run: the training run.
        test: its newest test that ended; none: it was not tested.
        facts: what rows are told apart by: parameters, and `family`, `model`, `init`, `segments`, `dataset`.
        value: what is compared.
    """

    run: RecordedRun
    test: RecordedRun | None
    facts: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Row:
    """One group of runs.

    Attributes:
        label: what people call it.
        paper: the paper's line for it; none: the paper has none.
        runs: its runs, the newest of each seed and fold.
        values: one a seed, in the order of seeds.
        seeds: their seeds.
        folds: the folds that they are means of.
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
        """Standard deviation over seeds; none of a single one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    def interval(self) -> tuple[float, float] | None:
        """Where the mean over all seeds lies, at 95 % (Student's t); none of a single seed.

        Of few seeds it is wide, and may lead beyond what an accuracy can be.
        """
        if self.spread is None:
            return None
        half = stats.t.ppf((1 + _CONFIDENCE) / 2, len(self.values) - 1) * self.spread / len(self.values) ** 0.5
        return self.mean - half, self.mean + half

    def metric(self, name: str) -> float | None:
        """Mean over runs of a metric of training or testing; none where no run has it."""
        found = [
            metrics[name]
            for each in self.runs
            for metrics in (each.run.metrics, each.test.metrics if each.test else {})
            if name in metrics
        ]
        return float(np.mean(found)) if found else None

    def hours(self) -> tuple[float, str]:
        """What all its runs cost, in GPU-hours where they had GPUs, else in CPU-hours."""
        if any(each.run.params.get("scaling.use_gpu") == "True" for each in self.runs):
            return sum(each.run.metrics.get("cost/worker_hours", 0.0) for each in self.runs), "GPU"
        cpus = [float(each.run.params.get("scaling.resources_per_worker.CPU", "1")) for each in self.runs]
        hours = [each.run.metrics.get("cost/worker_hours", 0.0) for each in self.runs]
        return float(np.dot(cpus, hours)), "CPU"


@dataclass(frozen=True)
class Comparison:
    """Rows, and what a reader has to know of them.

    Attributes:
        title: of the table.
        metric: what is compared.
        rows: best first.
        table: the paper's; none: not compared with one.
        notes: how the runs differ from the paper's, what was left out, what is missing.
    """

    title: str
    metric: str
    rows: tuple[Row, ...]
    table: PaperTable | None
    notes: tuple[str, ...] = field(default=())


def compare_runs(config: CompareConfig, *, tracking_uri: str) -> Comparison:
    """Read the runs and group them.

    Raises:
        ValueError: the experiment, or a run that is named, is not in the store; or nothing in it can be compared.
    """
    experiment = config.experiment or config.tracking.experiment
    runs = tracking.find_runs(tracking_uri, experiment=experiment)
    chosen = _chosen([run for run in runs if run.tags.get("stage") == config.stage], runs, config.runs)
    ended = [run for run in chosen if run.status == "FINISHED"]
    if not ended:
        states = ", ".join(f"{count} {state}" for state, count in Counter(run.status for run in chosen).items())
        raise ValueError(
            f"experiment {experiment!r} in {tracking_uri} has no {config.stage} run that ended"
            f"{f' ({states})' if states else ''}: train first, or name another --experiment"
        )
    by_id = {run.run_id: run for run in runs}
    tests = {
        run.tags[tracking.TRAINED_BY]: run
        for run in runs
        if run.status == "FINISHED" and tracking.TRAINED_BY in run.tags and TESTED in run.metrics
    }
    metric = config.metric or _usual_metric(config.stage, any(run.run_id in tests for run in ended))
    measured = [_measured(run, tests.get(run.run_id), by_id, metric) for run in ended]
    table = TABLES[config.table] if config.table is not None else None
    having = [each for each in measured if each is not None]
    if not having:
        known = sorted({name for run in ended for name in run.metrics})
        raise ValueError(f"no run has the metric {metric}; there are: {', '.join(known)}")
    axes = table.axes if table else tuple(config.group_by) or _usual_axes(having)
    rows, num_older = _rows(having, axes, table)
    rows.sort(key=lambda row: row.mean, reverse=not metric.endswith("loss"))
    notes = [
        *(_differences(having, table) if table else ()),
        *_left_out(chosen, ended, num_without=len(ended) - len(having), metric=metric, num_older=num_older),
        *_uneven(rows),
    ]
    title = f"Table {config.table}: {table.title}" if table else f"{experiment}, by {', '.join(axes) or 'nothing'}"
    return Comparison(title, metric, tuple(rows), table, tuple(notes))


def _chosen(of_stage: list[RecordedRun], runs: list[RecordedRun], named: Sequence[str]) -> list[RecordedRun]:
    if not named:
        return of_stage
    chosen: dict[str, RecordedRun] = {}
    for name in named:
        ids = {run.run_id for run in runs if name in (run.run_id, run.name)}
        found = [run for run in of_stage if run.run_id in ids or run.parent_id in ids]
        if not found:
            raise ValueError(f"runs: no run, and no search with trials, is called {name!r} in this experiment")
        chosen |= {run.run_id: run for run in found}
    return list(chosen.values())


def _usual_metric(stage: str, is_tested: bool) -> str:
    if stage == "transfer":
        return PAIRS
    return TESTED if is_tested else VALIDATED


def _measured(
    run: RecordedRun, test: RecordedRun | None, by_id: Mapping[str, RecordedRun], metric: str
) -> Measured | None:
    metrics = {**run.metrics, **(test.metrics if test else {})}
    if metric not in metrics:
        return None
    kind = run.params.get("model.kind", "")
    derived = {
        "family": family_of(kind),
        "model": kind,
        "init": _init_of(run, by_id),
        "segments": run.params.get("clip.num_segments", "1"),
        "dataset": " + ".join(run.datasets),
    }
    of_search = {name: value for name, value in run.tags.items() if name.startswith(tracking.AXIS)}
    point = {"point": run.tags.get(tracking.POINT, "")}
    return Measured(run, test, {**run.params, **derived, **of_search, **point}, metrics[metric])


def _init_of(run: RecordedRun, by_id: Mapping[str, RecordedRun]) -> str:
    """From which weights a run started, as far as the store knows."""
    if run.params.get("inflate_from", "None") != "None":
        return f"inflated from {run.params['inflate_from'].rpartition('/')[2]}"
    if run.params.get("init_from", "None") == "None":
        return "scratch"
    origin = by_id.get(run.tags.get(tracking.STARTED_FROM, ""))
    if origin is None:
        return "other weights"
    if origin.tags.get("stage") == "transfer":
        is_inflated = origin.params.get("inflate_from", "None") != "None"
        return "inflated, then transfer" if is_inflated else "transfer"
    return "transfer, then fine-tuned" if _init_of(origin, by_id) == "transfer" else "fine-tuned"


def _usual_axes(measured: Sequence[Measured]) -> tuple[str, ...]:
    """The points of a search where every run has one, else the settings that differ."""
    return ("point",) if all(each.facts["point"] for each in measured) else differing_settings(measured)


def differing_settings(measured: Sequence[Measured]) -> tuple[str, ...]:
    """The settings of which runs have different values; `init` for the weights that they start from."""
    names = dict.fromkeys(name for each in measured for name in each.run.params)
    settings = [name for name in names if not any(f"{name}.".startswith(f"{each}.") for each in _NOT_SETTINGS)]
    differing = [name for name in settings if len({each.facts.get(name, "-") for each in measured}) > 1]
    named = ("init" if name in ("init_from", "inflate_from") else name for name in differing)
    return tuple(dict.fromkeys(named))


def _rows(measured: Sequence[Measured], axes: Sequence[str], table: PaperTable | None) -> tuple[list[Row], int]:
    """The groups, and how many runs were left out for a newer one of the same seed and fold."""
    groups: dict[tuple[str, ...], dict[tuple[str, str], Measured]] = defaultdict(dict)
    num_older = 0
    for each in measured:  # the oldest first: a newer one takes its place
        group = groups[tuple(each.facts.get(axis, "-") for axis in axes)]
        place = (each.run.params.get("seed", "0"), each.run.params.get("data.fold", "1"))
        num_older += place in group
        group[place] = each
    rows = [_row(key, group, axes, table) for key, group in groups.items()]
    return rows, num_older


def _row(
    key: tuple[str, ...], group: Mapping[tuple[str, str], Measured], axes: Sequence[str], table: PaperTable | None
) -> Row:
    by_seed: dict[str, list[float]] = defaultdict(list)
    for (seed, _), each in sorted(group.items()):
        by_seed[seed].append(each.value)
    facts = next(iter(group.values())).facts
    paper = _paper_row(facts, table)
    label = (
        paper.label
        if paper
        else ", ".join(
            value if axis in ("family", "model", "init", "dataset", "point") else f"{axis.rpartition('.')[2]}={value}"
            for axis, value in zip(axes, key, strict=True)
        )
    )
    values = tuple(float(np.mean(of_seed)) for of_seed in by_seed.values())
    folds = tuple(sorted({fold for _, fold in group}))
    return Row(label or "all runs", paper, tuple(group.values()), values, tuple(by_seed), folds)


def _paper_row(facts: Mapping[str, str], table: PaperTable | None) -> PaperRow | None:
    for row in table.rows if table else ():
        if all(facts.get(name) == value for name, value in row.match.items()):
            return row
    return None


def _differences(measured: Sequence[Measured], table: PaperTable) -> list[str]:
    """How the runs differ from those of the paper: no reader takes a miniature for a reproduction."""
    found = []
    datasets = sorted({each.facts["dataset"] for each in measured})
    wanted = [table.dataset] if table.dataset else sorted({row.match["dataset"] for row in table.rows})
    if set(datasets) - set(wanted):
        found.append(f"data {', '.join(datasets)} (paper: {table.data})")
    for name, value in table.settings().items():
        ours = sorted({each.facts.get(name, "-") for each in measured})
        if ours != [value]:
            found.append(f"{name} {', '.join(ours)} (paper: {value})")
    if any(each.facts["model"] in ("t3d", "densenet3d") for each in measured):
        sizes = sorted({f"{each.run.metrics.get('model/parameters', 0):,.0f}" for each in measured})
        found.append(f"networks of {', '.join(sizes)} parameters, not those of the paper's Table 1")
    if not any(each.test for each in measured):
        found.append("validated on middle clips (paper: tested on all clips of a video)")
    elif (coverage := min(each.test.metrics.get("coverage", 1.0) for each in measured if each.test)) < 1:
        found.append(f"{coverage:.1%} of the listed videos (paper: all)")
    if not found:
        return []
    return [f"Not the paper's experiment: {'; '.join(found)}. The paper's figures are for orientation alone."]


def _left_out(
    chosen: Sequence[RecordedRun], ended: Sequence[RecordedRun], *, num_without: int, metric: str, num_older: int
) -> list[str]:
    notes = []
    for run in chosen:
        if run.status != "FINISHED":
            reason = run.tags.get(tracking.REASON, "no reason is known")
            notes.append(f"{run.name} is {run.status} and not compared: {reason}")
    if len(notes) > 5:
        notes = [*notes[:5], f"... and {len(notes) - 5} more runs that did not end"]
    if num_without:
        notes.append(f"{num_without} of {len(ended)} runs have no {metric} and are not compared: test them first")
    if num_older:
        notes.append(f"{num_older} older runs with the settings, seed and fold of a newer one are left out")
    return notes


def _uneven(rows: Sequence[Row]) -> list[str]:
    notes = []
    if len({row.seeds for row in rows}) > 1:
        seeds = "; ".join(f"{row.label}: {', '.join(row.seeds)}" for row in rows)
        notes.append(f"Rows have different seeds ({seeds}).")
    if any(len(row.values) < 3 for row in rows):
        notes.append("Fewer than three seeds: a spread says little, a difference may be chance.")
    if len({row.folds for row in rows}) > 1:
        folds = "; ".join(f"{row.label}: {', '.join(row.folds)}" for row in rows)
        notes.append(f"Rows are means over different folds ({folds}).")
    return notes
