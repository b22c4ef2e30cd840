"""Runs that MLflow has become the rows of a table: groups of runs that differ in their seed and fold alone.

A value is the accuracy of one seed: the mean over its folds where it was trained on several. Only `group_by` puts runs
together that differ in more, and then a note says in what.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

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
    *("compute.channels_last", "compute.recompute", "compute.compile", "compute.debug", "model.transition_forms"),
)
_PAPERS_WAY = {"data.split": "test", "num_crops": "1", "num_clips": "None"}
_WAY_OF_TESTING = tuple(_PAPERS_WAY)
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Measured:
    """One run, and the test of its weights.

    Attributes:
        run: the training run.
        test: its newest test that ended; none: it was not tested.
        facts: what rows are told apart by: parameters, and `family`, `model`, `init`, `segments`, `dataset`.
        settings: all that it shares with the other runs of its row.
        value: what is compared.
    """

    run: RecordedRun
    test: RecordedRun | None
    facts: Mapping[str, str]
    settings: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Row:
    """One group of runs.

    Attributes:
        label: what people call it; no other row is called the same.
        paper: the paper's line for it; none: the paper has none.
        runs: its runs, by seed and fold; of those that are alike the newest.
        values: one a seed (of pooled settings one for each, too), in the order of seeds.
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
    tests, notes_of_tests = _tests(runs, {run.run_id for run in ended})
    metric = config.metric or _usual_metric(config.stage, bool(tests))
    measured = [_measured(run, tests.get(run.run_id), by_id, metric) for run in ended]
    table = TABLES[config.table] if config.table is not None else None
    having = [each for each in measured if each is not None]
    if not having:
        known = sorted({name for run in ended for name in run.metrics})
        raise ValueError(f"no run has the metric {metric}; there are: {', '.join(known)}")
    axes = table.axes if table else tuple(config.group_by) or _usual_axes(having)
    groups, num_older = _groups(having, axes if config.group_by else ())
    rows = _told_apart([_row(group, axes, table) for group in groups])
    rows.sort(key=lambda row: row.mean, reverse=is_more_better(metric))
    notes = [
        *(_differences(rows, table) if table else ()),
        *_left_out(chosen, ended, num_without=len(ended) - len(having), metric=metric, num_older=num_older),
        *notes_of_tests,
        *_uneven(rows),
    ]
    title = f"Table {config.table}: {table.title}" if table else f"{experiment}, by {', '.join(axes) or 'nothing'}"
    return Comparison(title, metric, tuple(rows), table, tuple(notes))


def is_more_better(metric: str) -> bool:
    """Whether runs want much of it: accuracies, but no losses and costs."""
    return not metric.endswith("loss") and not metric.startswith(("cost/", "model/"))


def _tests(runs: Sequence[RecordedRun], trained: Collection[str]) -> tuple[dict[str, RecordedRun], list[str]]:
    """The newest test of each training run, made in the way in which most of them were tested; and what is left out.

    The way: split, crops and clips of a video, and the data.
    """
    by_way: dict[tuple[str, ...], dict[str, RecordedRun]] = defaultdict(dict)
    for run in runs:
        of_run = run.tags.get(tracking.TRAINED_BY, "")
        if run.status == "FINISHED" and of_run in trained and TESTED in run.metrics:
            way = (*(run.params.get(name, "-") for name in _WAY_OF_TESTING), " + ".join(run.datasets) or "-")
            by_way[way][of_run] = run
    if not by_way:
        return {}, []
    papers = tuple(_PAPERS_WAY.values())
    way = max(by_way, key=lambda way: (len(by_way[way]), way[: len(papers)] == papers))
    others = sorted(each for each in by_way if each != way)
    if not others:
        return by_way[way], []
    names = [name.rpartition(".")[2] for name in (*_WAY_OF_TESTING, "dataset")]
    differ = [len({each[place] for each in by_way}) > 1 for place in range(len(names))]

    def text(each: tuple[str, ...]) -> str:
        return ", ".join(f"{name} {value}" for name, value, told in zip(names, each, differ, strict=True) if told)

    return by_way[way], [f"Tests with {text(way)} are compared, not those with {'; '.join(map(text, others))}."]


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
    settings = settings_of(run, by_id)
    derived = {
        "family": family_of(kind),
        "model": kind,
        "init": _init_of(run, by_id),
        "segments": run.params.get("clip.num_segments", "1"),
        "dataset": settings["dataset"],
    }
    of_search = {name: value for name, value in run.tags.items() if name.startswith(tracking.AXIS)}
    point = {"point": run.tags.get(tracking.POINT, "")}
    return Measured(run, test, {**run.params, **derived, **of_search, **point}, settings, metrics[metric])


def settings_of(run: RecordedRun, by_id: Mapping[str, RecordedRun]) -> dict[str, str]:
    """All that makes a run what it is, but for seed and fold: parameters, data, and the run whose weights it took.

    Members of a population have their search's name, too: their settings changed on the way.
    """
    origin = by_id.get(run.tags.get(tracking.STARTED_FROM, ""))
    settings = {
        name: value
        for name, value in run.params.items()
        if not any(f"{name}.".startswith(f"{each}.") for each in _NOT_SETTINGS)
        and not (origin is not None and name == "init_from")
    }
    settings["dataset"] = " + ".join(run.datasets)
    if origin is not None:
        described = json.dumps(settings_of(origin, by_id), sort_keys=True)
        settings["init"] = f"{_init_of(run, by_id)} ({hashlib.sha256(described.encode()).hexdigest()[:6]})"
    if any(name.startswith("setting/") for name in run.metrics):
        settings["population"] = run.tags.get("search", "-")
    return settings


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
    names = dict.fromkeys(name for each in measured for name in each.settings)
    differing = [name for name in names if len({each.settings.get(name, "-") for each in measured}) > 1]
    named = ("init" if name in ("init_from", "inflate_from") else name for name in differing)
    return tuple(dict.fromkeys(named))


Unit = dict[str, Measured]  # one seed of one kind of run: by fold


def _groups(measured: Sequence[Measured], pooled_by: Sequence[str]) -> tuple[list[list[Unit]], int]:
    """Runs that make a row, one list of seeds each; and how many were left out for a newer one that is the same.

    Without `pooled_by` all settings of a row's runs are the same. Seeds of different folds are never put together.
    """
    units: dict[tuple[str, str], Unit] = defaultdict(dict)
    num_older = 0
    for each in measured:  # the oldest first: a newer one takes its place
        unit = units[json.dumps(each.settings, sort_keys=True), each.run.params.get("seed", "0")]
        fold = each.run.params.get("data.fold", "1")
        num_older += fold in unit
        unit[fold] = each
    groups: dict[tuple[object, ...], list[Unit]] = defaultdict(list)
    for (settings, _), unit in units.items():
        facts = next(iter(unit.values())).facts
        key = tuple(facts.get(axis, "-") for axis in pooled_by) or (settings,)
        groups[key, tuple(sorted(unit))].append(unit)
    return list(groups.values()), num_older


def _row(group: Sequence[Unit], axes: Sequence[str], table: PaperTable | None) -> Row:
    group = sorted(group, key=lambda unit: next(iter(unit.values())).run.params.get("seed", "0"))
    runs = [unit[fold] for unit in group for fold in sorted(unit)]
    facts = runs[0].facts
    paper = _paper_row(facts, table)
    named = ("family", "model", "init", "dataset", "point")
    label = ", ".join(
        facts.get(axis, "-") if axis in named else f"{axis.rpartition('.')[2]}={facts.get(axis, '-')}" for axis in axes
    )
    values = tuple(float(np.mean([each.value for each in unit.values()])) for unit in group)
    seeds = tuple(next(iter(unit.values())).run.params.get("seed", "0") for unit in group)
    return Row(
        paper.label if paper else label or "all runs", paper, tuple(runs), values, seeds, tuple(sorted(group[0]))
    )


def _told_apart(rows: Sequence[Row]) -> list[Row]:
    """Rows of one label get what they differ in, or their place among them, added to it."""
    by_label: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_label[row.label].append(row)
    told_apart = []
    for label, alike in by_label.items():
        names = differing_settings([row.runs[0] for row in alike]) if len(alike) > 1 else ()
        has_folds = len({row.folds for row in alike}) > 1
        for place, row in enumerate(alike, start=1):
            first = row.runs[0]
            parts = [
                f"{name.rpartition('.')[2]}={first.settings.get(name, first.facts.get(name, '-'))}" for name in names
            ]
            parts += [f"folds {' '.join(row.folds)}"] if has_folds else []
            parts = parts or ([f"no. {place}"] if len(alike) > 1 else [])
            told_apart.append(replace(row, label=", ".join([label, *parts])))
    return told_apart


def _paper_row(facts: Mapping[str, str], table: PaperTable | None) -> PaperRow | None:
    for row in table.rows if table else ():
        if all(facts.get(name) == value for name, value in row.match.items()):
            return row
    return None


def _differences(rows: Sequence[Row], table: PaperTable) -> list[str]:
    """How the runs differ from those of the paper: no reader takes a miniature for a reproduction."""
    of_rows = [list(_differences_of_row(row, table)) for row in rows]
    common = [text for text in of_rows[0] if all(text in texts for texts in of_rows)]
    notes = [f"Not the paper's experiment: {'; '.join(common)}."] if common else []
    for row, texts in zip(rows, of_rows, strict=True):
        if own := [text for text in texts if text not in common]:
            notes.append(f"{row.label}{' also' if common else ''} is not the paper's: {'; '.join(own)}.")
    if notes:
        notes.append("The paper's figures are for orientation alone.")
    return [*notes, *([table.note] if table.note else ())]


def _differences_of_row(row: Row, table: PaperTable) -> Iterator[str]:
    first = row.runs[0]
    if row.paper is None:
        yield "the paper has no such line"
        return
    wanted = table.dataset or row.paper.match["dataset"]
    if first.facts["dataset"] != wanted:
        yield f"data {first.facts['dataset']} (paper: {table.data})"
    if table.folds and row.folds != table.folds:
        yield f"folds {', '.join(row.folds)} (paper: {', '.join(table.folds)})"
    settings = table.settings(row.paper)
    kind = settings.pop("model.kind")
    if first.facts["model"] != kind:
        yield f"network {first.facts['model']} (paper: {kind})"
        settings = {name: value for name, value in settings.items() if not name.startswith("model.")}
    for name, value in settings.items():
        ours = sorted({each.run.params[name] for each in row.runs if name in each.run.params})
        if ours and ours != [value]:
            yield f"{name} {', '.join(ours)} (paper: {value})"
    tests = [each.test for each in row.runs if each.test is not None]
    if not tests:
        yield "validated on middle clips (paper: tested on all clips of a video)"
        return
    for name, value in _PAPERS_WAY.items():
        ours = sorted({test.params[name] for test in tests if name in test.params})
        if ours and ours != [value]:
            yield f"tested with {name.rpartition('.')[2]} {', '.join(ours)} (paper: {value.replace('None', 'all')})"
    if (coverage := min(test.metrics.get("coverage", 1.0) for test in tests)) < 1:
        yield f"{coverage:.1%} of the listed videos (paper: all)"


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
    for row in rows:
        if differing := [name for name in differing_settings(row.runs) if name != "dataset"]:
            notes.append(f"Runs of {row.label} differ in {', '.join(differing)}.")
    if any("population" in row.runs[0].settings for row in rows):
        notes.append("Rows of a population based search are called by the settings with which their trials began.")
    if len({row.folds for row in rows}) > 1:
        folds = "; ".join(f"{row.label}: {', '.join(row.folds)}" for row in rows)
        notes.append(f"Rows are means over different folds ({folds}).")
    return notes
