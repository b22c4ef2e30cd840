"""A training run in MLflow and the test of its weights become one value, with all that the value depends on."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pipelines.baseline.config import BaselineConfig
from pipelines.compare.paper_tables import family_of
from pipelines.settings.section import NOT_THE_EXPERIMENT, added_defaults, is_among, names_of_roles
from pipelines.tracking.recorded import AXIS, HELD_OUT, NOTHING, POINT, STARTED_FROM, TRAINED_BY, RecordedRun
from pipelines.train.config import TrainConfig
from pipelines.transfer.config import TransferConfig

BASELINE = "baseline"  # stage of runs that are their own tests and follow from no seed
TESTED, VALIDATED = "video_top1", "val/clip_top1"
PAPERS_WAY_OF_TESTING = {"data.split": "test", "num_crops": "1", "num_clips": "None"}
# Parameters and sections that record where and how a run was made, not what it is.
_CONFIGS = (TrainConfig, TransferConfig, BaselineConfig)
_NOT_SETTINGS = {name for config in _CONFIGS for name in names_of_roles(config, NOT_THE_EXPERIMENT)}
# Parameters that runs of earlier versions lack, with the value that describes what those runs did.
_ADDED = {name: str(value) for config in _CONFIGS for name, value in added_defaults(config).items()}


@dataclass(frozen=True)
class Measured:
    """One run, and the test of its weights.

    Attributes:
        run: the training run, or a baseline.
        test: its newest test that ended, or the baseline itself; None if it was not tested.
        facts: what rows are grouped by: parameters, and `family`, `model`, `init`, `segments`, `dataset`.
        settings: what it shares with the other runs of its row.
        value: what is compared.
    """

    run: RecordedRun
    test: RecordedRun | None
    facts: Mapping[str, str]
    settings: Mapping[str, str]
    value: float

    @property
    def is_baseline(self) -> bool:
        """Whether no network was trained: it is as it is for every seed."""
        return self.run.tags.get("stage") == BASELINE


def measure(
    run: RecordedRun, test: RecordedRun | None, by_id: Mapping[str, RecordedRun], metric: str
) -> Measured | None:
    """Return the value of a run, from its test or else from its training; None if it has no such metric.

    A baseline has no value if its test is not among those that are compared.
    """
    if test is None and run.tags.get("stage") == BASELINE:
        return None
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
    of_search = {name: value for name, value in run.tags.items() if name.startswith(AXIS)}
    point = {"point": run.tags.get(POINT, "")}
    return Measured(run, test, {**run.params, **settings, **derived, **of_search, **point}, settings, metrics[metric])


def find_tests(runs: Sequence[RecordedRun], trained: Collection[str]) -> tuple[dict[str, RecordedRun], list[str]]:
    """The newest test of each training run, and notes on the tests that are left out.

    All these tests have the same split, crops, clips of a video and data: those that most runs were tested with.
    Baselines have neither crops nor clips, and fit to any test of their split and data.
    """
    by_way: dict[tuple[str, ...], dict[str, RecordedRun]] = defaultdict(dict)
    baselines: dict[tuple[str, ...], dict[str, RecordedRun]] = defaultdict(dict)
    for run in runs:
        is_baseline = run.tags.get("stage") == BASELINE
        of_run = run.run_id if is_baseline else run.tags.get(TRAINED_BY, "")
        if run.status == "FINISHED" and of_run in trained and TESTED in run.metrics:
            way = (*(run.params.get(name, "-") for name in PAPERS_WAY_OF_TESTING), " + ".join(run.datasets) or "-")
            (baselines if is_baseline else by_way)[way][of_run] = run
    if not by_way:
        by_way, baselines = baselines, {}
    if not by_way:
        return {}, []
    papers = tuple(PAPERS_WAY_OF_TESTING.values())
    way = max(by_way, key=lambda way: (len(by_way[way]), way[: len(papers)] == papers))
    tests = dict(by_way[way])
    for of_baselines, found in baselines.items():
        if (of_baselines[0], of_baselines[-1]) == (way[0], way[-1]):
            tests |= found
        else:
            by_way.setdefault((of_baselines[0], *way[1:-1], of_baselines[-1]), found)
    others = sorted(each for each in by_way if each != way)
    if not others:
        return tests, []
    names = [name.rpartition(".")[2] for name in (*PAPERS_WAY_OF_TESTING, "dataset")]
    differ = [len({each[place] for each in by_way}) > 1 for place in range(len(names))]

    def text(each: tuple[str, ...]) -> str:
        return ", ".join(f"{name} {value}" for name, value, differs in zip(names, each, differ, strict=True) if differs)

    return tests, [f"Tests with {text(way)} are compared, not those with {'; '.join(map(text, others))}."]


def settings_of(run: RecordedRun, by_id: Mapping[str, RecordedRun]) -> dict[str, str]:
    """What identifies a run, except seed and fold: parameters, data, and the run whose weights it took.

    A parameter that was added later counts only where it differs from its default, so that older runs stay comparable.
    Members of a population also have the name of their search, because their settings changed during training.
    """
    origin = by_id.get(run.tags.get(STARTED_FROM, ""))
    settings = {
        name: value
        for name, value in run.params.items()
        if not is_among(name, _NOT_SETTINGS)
        and _ADDED.get(name) != value
        and not (origin is not None and name == "init_from")
    }
    settings["dataset"] = " + ".join(run.datasets)
    settings |= _clips_at_once(run.params)
    if (held_out := _held_out(run, by_id)) is not None:
        settings["data.holdout_seed"] = held_out
    if origin is not None:
        described = json.dumps(settings_of(origin, by_id), sort_keys=True)
        settings["init"] = f"{_init_of(run, by_id)} ({hashlib.sha256(described.encode()).hexdigest()[:6]})"
    if any(name.startswith("setting/") for name in run.metrics):
        settings["population"] = run.tags.get("search", "-")
    return settings


def _clips_at_once(params: Mapping[str, str]) -> dict[str, str]:
    """The clips of a forward pass, which batch norms and pairs see, and with synchronised ones those of all workers."""
    if "global_batch_size" not in params:
        return {}
    workers = json.loads(params.get("scaling.num_workers", "1"))
    most = max(1, *workers) if isinstance(workers, list) else max(1, workers)
    given = params.get("micro_batch_size", "None")
    size = int(params["global_batch_size"]) // most if given == "None" else int(given)
    synchronised = params.get("compute.sync_batch_norm") == "True"
    return {"micro_batch_size": str(size)} | ({"batch_norm_clips": str(size * most)} if synchronised else {})


def _held_out(run: RecordedRun, by_id: Mapping[str, RecordedRun]) -> str | None:
    """By which seed a training run held out the sources that validate; None if its fold has a split `val`.

    An older run does not record it. It held out nothing if a newer run of the same data did not.
    """
    if run.tags.get("stage") != "train":
        return None
    if HELD_OUT in run.tags:
        return None if run.tags[HELD_OUT] == NOTHING else run.tags[HELD_OUT]
    newer = [each for each in by_id.values() if each.datasets == run.datasets and HELD_OUT in each.tags]
    return None if any(each.tags[HELD_OUT] == NOTHING for each in newer) else "as seed"


def differing_settings(measured: Sequence[Measured]) -> tuple[str, ...]:
    """The settings that differ between runs; `init` stands for the weights that they start from."""
    names = dict.fromkeys(name for each in measured for name in each.settings)
    differing = [name for name in names if len({each.settings.get(name, "-") for each in measured}) > 1]
    named = ("init" if name in ("init_from", "inflate_from") else name for name in differing)
    return tuple(dict.fromkeys(named))


def _init_of(run: RecordedRun, by_id: Mapping[str, RecordedRun]) -> str:
    """The weights that a run started from, as far as the store has them."""
    if run.params.get("inflate_from", "None") != "None":
        return f"inflated from {run.params['inflate_from'].rpartition('/')[2]}"
    if run.params.get("init_from", "None") == "None":
        return "scratch"
    origin = by_id.get(run.tags.get(STARTED_FROM, ""))
    if origin is None:
        return "other weights"
    if origin.tags.get("stage") == "transfer":
        is_inflated = origin.params.get("inflate_from", "None") != "None"
        return "inflated, then transfer" if is_inflated else "transfer"
    return "transfer, then fine-tuned" if _init_of(origin, by_id) == "transfer" else "fine-tuned"
