"""One trial of a search: a run like any other, and its test, in a process of Ray Tune.

STORAGE/NAME/trials/TRIAL/...            the run's own folder; a restarted run resumes from its checkpoint
STORAGE/NAME/trials/TRIAL/log.txt        what it would print on a terminal
STORAGE/NAME/trials/TRIAL/test/...       what jobs/evaluate.py writes
STORAGE/transfers/NAME-HASH-seedS/...    transfer runs that trials start from, shared by all searches of a storage
"""

import contextlib
import functools
import json
import os
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ray import tune

from pipelines.baseline.config import BaselineConfig
from pipelines.baseline.job import run_baseline
from pipelines.evaluate.config import EvaluateConfig
from pipelines.evaluate.job import run_evaluate
from pipelines.networks.weights import card_of, costs_of
from pipelines.runtime.ray_logging import quiet
from pipelines.search.config import SearchConfig
from pipelines.search.space import Point
from pipelines.settings.build import changed, with_values
from pipelines.settings.options import Tree
from pipelines.settings.section import RESUMABLE, config_fingerprint, names_of_roles
from pipelines.tracking.metric_log import read_curves
from pipelines.tracking.recorded import AXIS, PARENT, POINT
from pipelines.tracking.runs import PausedError
from pipelines.tracking.store import StoreAwayError
from pipelines.train.config import ResolvedTrainConfig, TrainConfig, resolve
from pipelines.train.job import run_train
from pipelines.training.config import RunConfig
from pipelines.training.run_folder import Launch, metrics_file, run_id_of
from pipelines.training.worker import Interval, Metrics
from pipelines.transfer.config import TransferConfig
from pipelines.transfer.job import run_transfer
from pipelines.transfer.stage import TwinStage
from t3d_core.errors import UserError
from t3d_core.training.weights_card import WeightsCard

TrialConfig = ResolvedTrainConfig | TransferConfig | BaselineConfig
_NOT_THE_TRANSFER = tuple(  # where the same shards lie is among the resumable settings
    name for name in names_of_roles(TransferConfig, RESUMABLE) if name != "data.shards"
)
_TRANSFER = "transfer/"  # `init_from: transfer/NAME`, `inflate_from: transfer/NAME`: of a transfer before the trial


@dataclass(frozen=True)
class SearchPlan:
    """What turns a point and a seed into the settings of a trial.

    Attributes:
        config: the search.
        base: settings of the base recipe.
        transfer_bases: settings of the recipes of `transfer_before`, by name.
        common: settings of every trial, such as where shards and runs lie.
        folder: of the search.
        tags: of every trial's MLflow run.
        class_names: of the shards; empty except for trials that train classifiers.
    """

    config: SearchConfig
    base: Tree
    transfer_bases: Mapping[str, Tree]
    common: Mapping[str, Any]
    folder: Path
    tags: Mapping[str, str] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()

    def trial_config(self, settings: Mapping[str, Any], *, seed: int, name: str) -> TrialConfig:
        """The settings of one trial.

        Raises:
            UserError: settings that the job does not have or that are wrong, one line each.
        """
        values = {**self.config.settings, **settings, **self.common, "seed": seed, "name": name}
        config: TrialConfig
        if self.config.job == "train":
            given = with_values(TrainConfig, self.base, values)
            config = resolve(given, model=given.model, clip=given.clip)
        elif self.config.job == "transfer":
            config = with_values(TransferConfig, self.base, values)
        else:
            return with_values(BaselineConfig, self.base, values)
        return config if config.scaling.num_workers != 1 else in_this_process(config)

    def transfers_before(self, trial: TrialConfig) -> tuple[TransferConfig, ...]:
        """The settings of the transfers that lead to a trial's first weights, in the order in which they run.

        The trial starts from the last of them, and each of the others gives the next one its first weights. They have
        the trial's network, clips and seed.

        Raises:
            UserError: the search has no such transfer, or a transfer has wrong settings.
        """
        return self._transfers_before(trial, trial) if isinstance(trial, ResolvedTrainConfig) else ()

    def _transfers_before(
        self, config: ResolvedTrainConfig | TransferConfig, trial: ResolvedTrainConfig
    ) -> tuple[TransferConfig, ...]:
        setting = "inflate_from" if (config.inflate_from or "").startswith(_TRANSFER) else "init_from"
        start = str(getattr(config, setting, None))  # a transfer has no init_from
        if not start.startswith(_TRANSFER):
            return ()
        known, named = self.config.transfer_before or {}, start.removeprefix(_TRANSFER)
        if named not in known:
            raise UserError(
                f"{setting} {start} needs a transfer before the trial: describe {named!r} in transfer_before "
                f"(there: {', '.join(known) or 'none'})"
            )
        sections = {name: getattr(trial, name).model_dump(exclude_none=True) for name in ("model", "clip")}
        tracking = {name: value for name, value in self.common.items() if name.startswith("tracking.")}
        values = {**known[named].settings, **sections, **tracking, "seed": trial.seed}
        own = with_values(TransferConfig, self.transfer_bases[named], values)
        if (own.objective == "frame_regression") != (setting == "inflate_from"):
            raise UserError(
                f"{setting} {start}: inflate_from takes the 2D twin of a transfer with objective frame_regression, and "
                f"init_from the student of any other, but {named!r} has objective {own.objective}: give the other one"
            )
        before = self._transfers_before(own, trial)  # a twin has none
        if before:
            own = changed(own, {"inflate_from": before[-1].name})  # which holds wherever the storage lies
        digest = config_fingerprint(own, exclude=_NOT_THE_TRANSFER)
        named_run = {"name": f"{named}-{digest[:8]}-seed{trial.seed}", "storage": str(self.transfers_folder)}
        return *before, in_this_process(changed(own, named_run | (self.started_from(before[-1]) if before else {})))

    def started_from(self, transfer: TransferConfig) -> dict[str, str]:
        """The setting by which a run starts from the weights of a transfer."""
        folder = self.transfers_folder / str(transfer.name)
        if transfer.objective == "frame_regression":
            return {"inflate_from": str(folder / TwinStage.weights_name)}
        return {"init_from": str(folder)}

    def card(self, config: ResolvedTrainConfig | TransferConfig) -> WeightsCard:
        """The network of a trial and its clips."""
        return card_of(config.model, config.clip, class_names=self.class_names)

    @property
    def transfers_folder(self) -> Path:
        """Where transfer runs before trials lie: beside the searches, so that searches share them."""
        return self.folder.parent / "transfers"

    def trial_folder(self, name: str) -> Path:
        """The folder of a trial's run."""
        return self.folder / "trials" / name


ConfigT = TypeVar("ConfigT", bound=RunConfig)


def in_this_process(config: ConfigT) -> ConfigT:
    """The settings of a run that takes no CPU but the one that its trial has, for its worker and for its teacher."""
    is_cached = isinstance(config, TransferConfig) and config.cache is not None and config.cache.num_workers == 1
    return changed(config, {"scaling.num_workers": 0} | ({"cache.num_workers": 0} if is_cached else {}))


def run_trial(assignment: Mapping[str, Any], plan: SearchPlan) -> None:
    """Train and test one point with one seed, or run a transfer for it; report to Ray Tune.

    Every validation is reported, and the end. An error that would occur again is reported as `failure`. Any other, such
    as an unreachable store, fails the trial, and Tune starts it again.
    """
    quiet()
    os.chdir(os.environ["TUNE_ORIG_WORKING_DIR"])  # relative paths mean the same as in the driver
    point = Point(**json.loads(assignment["point"]))
    try:
        config = plan.trial_config(point.settings, seed=assignment["seed"], name=assignment["trial"])
        if assignment["transfer"]:
            _run_transfer_before(plan, config, assignment["transfer"])
        else:
            _run_point(assignment, plan, point, config)
    except StoreAwayError:
        raise
    except UserError as error:
        tune.report({"failure": " ".join(str(error).split())})


def _run_transfer_before(plan: SearchPlan, trial: TrialConfig, name: str) -> None:
    """Run one of the transfers before a trial; one that has ended returns at once."""
    [config] = [transfer for transfer in plan.transfers_before(trial) if transfer.name == name]
    with _printing_to(plan.transfers_folder / name / "log.txt"):
        print(run_transfer(config, Launch(shows_progress=False, tags=plan.tags)))
    tune.report({"transferred": True})


def _run_point(assignment: Mapping[str, Any], plan: SearchPlan, point: Point, config: TrialConfig) -> None:
    folder = plan.trial_folder(assignment["trial"])
    watched = plan.config.watched_metric()
    costs = {} if isinstance(config, BaselineConfig) else costs_of(plan.card(config))
    axes = {f"{AXIS}{name}": str(value) for name, value in point.values.items()}
    launch = Launch(
        shows_progress=False,
        validated=functools.partial(_report, watched, costs),
        run_name=f"{point.label}, seed {assignment['seed']}",
        tags={**plan.tags, POINT: point.label_of_repetitions, **axes},
        interval=Interval(**json.loads(assignment["interval"])) if "interval" in assignment else None,
    )
    try:
        with _printing_to(folder / "log.txt"):
            metrics = costs | _train_and_test(plan, config, launch)
            if watched not in metrics:
                raise UserError(f"metric {watched} is not one of the run's: choose from {', '.join(sorted(metrics))}")
    except PausedError:
        tune.report(final_metrics(folder) | costs | {"waits": True})
    else:
        tune.report(metrics | {"ended": True})


def _train_and_test(plan: SearchPlan, config: TrialConfig, launch: Launch) -> Metrics:
    assert config.name is not None, "given by the plan"
    folder = plan.trial_folder(config.name)
    if isinstance(config, BaselineConfig):
        print(run_baseline(config, run_name=launch.run_name, tags=launch.tags))
        return _tested(folder)
    if isinstance(config, TransferConfig):
        print(run_transfer(config, launch))
        return final_metrics(folder)
    if transfers := plan.transfers_before(config):
        config = changed(config, plan.started_from(transfers[-1]))
    print(run_train(config, launch))
    return final_metrics(folder) | _test(plan, config, folder)


def _report(watched: str, costs: Metrics, step: int, metrics: Metrics) -> None:
    """Report a validation to Ray Tune, except the one before the first step."""
    if step and watched in metrics:
        tune.report({**metrics, **costs, "step": step})


def final_metrics(folder: Path) -> Metrics:
    """The last values that a run logged of its validations and its cost."""
    return {
        name: points[-1][1]
        for name, points in read_curves(metrics_file(folder)).items()
        if name.startswith(("val/", "check/", "probe/", "cost/")) or name == "epoch"
    }


def _test(plan: SearchPlan, config: ResolvedTrainConfig, folder: Path) -> Metrics:
    """Test the trained network if the search asks for it."""
    test = plan.config.test
    if test is None:
        return {}
    done = folder / "test" / "done"
    if not done.is_file():
        evaluate = EvaluateConfig(
            data={"shards": config.data.shards, "fold": config.data.fold, "split": test.split},
            checkpoint=str(folder),
            output=folder / "test",
            num_crops=test.num_crops,
            num_clips=test.num_clips,
            num_workers=1 if config.scaling.most_workers() and config.scaling.use_gpu else 0,  # where the GPU is
            use_gpu=config.scaling.use_gpu,
            tracking=config.tracking,
        )
        print(run_evaluate(evaluate, tags={**plan.tags, PARENT: str(run_id_of(folder))}))
        done.touch()
    return _tested(folder)


def _tested(folder: Path) -> Metrics:
    """The numbers of the test in a trial's folder."""
    evaluation = json.loads((folder / "test" / "metrics.json").read_text())
    return {f"test/{name}": float(value) for name, value in evaluation.items() if isinstance(value, int | float)}


@contextlib.contextmanager
def _printing_to(path: Path) -> Iterator[None]:
    """Send what is printed to a file, because it would be unreadable between the search's own lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", buffering=1) as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            yield
        except PausedError:
            raise
        except Exception:
            traceback.print_exc()
            raise
