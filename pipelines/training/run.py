"""A stage is trained to its end, on workers or in this process, and its result lies in the folder of the run."""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from pipelines.runtime.files import copy_whole
from pipelines.settings.build import changed
from pipelines.settings.terminal import Field, format_summary, seen_from_here
from pipelines.tracking.metric_log import drain
from pipelines.tracking.runs import PausedError, Run
from pipelines.training.checkpoints import CheckpointFolder
from pipelines.training.clips_at_once import with_clips_at_once
from pipelines.training.config import RunConfig
from pipelines.training.progress import Listeners, ProgressBar
from pipelines.training.run_folder import TERMINAL, Launch, RunFolder, metrics_file, read_unreadable, unreadable_file
from pipelines.training.stage import Stage
from pipelines.training.worker import Metrics, ignore
from pipelines.training.workers import train_here, train_on_workers
from t3d_core.errors import UserError
from t3d_core.training.schedules import linearly_scaled

# How long the end of a run waits for an MLflow server that does not answer.
_MLFLOW_PATIENCE_SECONDS = 600.0


class Unreadable(NamedTuple):
    """Clips that could not be read while training and validating: how often, of how many videos, and the list."""

    num_clips: int
    num_videos: int
    path: Path


@dataclass(frozen=True)
class FinishedRun:
    """A run that reached its end: validation metrics before and after, the weights, the MLflow run."""

    initial: Metrics
    final: Metrics
    weights: Path
    unreadable: Unreadable | None
    run: Run

    def describe_unreadable(self) -> list[Field]:
        """The field of the summary that counts unreadable clips; empty when there are none."""
        if self.unreadable is None:
            return []
        num_clips, num_videos, path = self.unreadable
        return [("unread", f"{num_clips} clips of {num_videos} videos were left out of their steps: see {path}")]


def fit(stage: Stage, folder: RunFolder, launch: Launch = TERMINAL) -> FinishedRun:
    """Train `stage` to its end, resuming from the newest checkpoint in `folder`.

    Raises:
        UserError: the run cannot continue (a loss that is not finite, a full disk), or MLflow does not take its curves.
        PausedError: the interval of `launch` is over, and the run is not.
        Exception: the error of a worker, when workers failed more often than `failure.max_failures` allows.
    """
    resolved = with_clips_at_once(stage.config, folder.clips_at_once, run=f"run {folder.path.name!r}")
    if launch.shows_progress and resolved.micro_batch_size != stage.config.micro_batch_size:
        print(
            f"micro-batches of {resolved.micro_batch_size} clips, also when the run resumes on other workers",
            flush=True,
        )
    stage = replace(stage, config=resolved)  # type: ignore[type-var]
    interval = launch.interval
    if interval is not None:
        stage = replace(stage, config=changed(stage.config, interval.settings))  # type: ignore[type-var]
    config = stage.config
    if (scaled := describe_scaled_rate(config)) is not None:
        print(scaled, flush=True)
    train = train_on_workers if config.scaling.most_workers() else train_here
    checkpoints = CheckpointFolder(folder.path, config.checkpoint.num_to_keep)
    newest = checkpoints.newest()
    checkpoints.sweep()
    if launch.shows_progress:
        _print_place(config, folder, newest=newest)
    with ProgressBar(stage.order, epochs=config.epochs) as bar:
        show = bar.show if launch.shows_progress else ignore
        listeners = Listeners(show=show, validated=launch.validated)
        outcome = train(stage, checkpoints, folder.run, listeners, interval)
    if outcome.refusal is not None:
        with contextlib.suppress(UserError):  # an MLflow server that is down must not hide why the run stopped
            drain(folder.run, metrics_file(folder.path), timeout_seconds=0.0)
        raise UserError(outcome.refusal)
    drain(folder.run, metrics_file(folder.path), timeout_seconds=_MLFLOW_PATIENCE_SECONDS)
    if interval is not None and interval.until_epoch < config.epochs:
        raise PausedError(f"run {folder.path.name!r} is paused at epoch {interval.until_epoch} of {config.epochs}")
    newest = checkpoints.newest()
    assert newest is not None, "the loop ends with a checkpoint"
    weights = copy_whole(newest / stage.weights_name, folder.path / stage.weights_name)
    folder.run.log_artifact(weights, artifact_path="weights")
    unreadable = _log_unreadable(folder)
    return FinishedRun(outcome.validations["initial"], outcome.validations["final"], weights, unreadable, folder.run)


def _print_place(config: RunConfig, folder: RunFolder, *, newest: Path | None) -> None:
    """Print where the run lies, whether it resumes, and how to resume it when the user gave no name."""
    remark = ""
    if newest is not None:
        remark = f" (resumes after {newest.name})"
    elif config.name is None:
        remark = f" (to resume it: --name {folder.path.name})"
    where = format_summary([("run", f"{folder.path}{remark}"), ("mlflow", folder.run.describe())])
    print(seen_from_here(where), flush=True)


def describe_padding(metrics: Metrics) -> str:
    """The end of a summary line: the share of frames that pad short videos; empty when there are none."""
    return f"; {metrics['padded_share']:.1%} of frames made up" if metrics["padded_share"] else ""


def describe_scaled_rate(config: RunConfig) -> str | None:
    """Describe the learning rate after linear scaling; None when the given rate is used as it is."""
    optimizer, batch_size = config.optimizer, config.global_batch_size
    if optimizer.base_batch_size is None:
        return None
    lr = linearly_scaled(optimizer.lr, global_batch_size=batch_size, base_batch_size=optimizer.base_batch_size)
    given = f"optimizer.lr {optimizer.lr:g} is for {optimizer.base_batch_size}"
    return f"learning rate: {lr:g} for {batch_size} clips a step ({given})"


def _log_unreadable(folder: RunFolder) -> Unreadable | None:
    path = unreadable_file(folder.path)
    if not path.is_file():
        return None
    folder.run.log_artifact(path)
    videos = read_unreadable(path)
    return Unreadable(len(videos), len(set(videos)), path)
