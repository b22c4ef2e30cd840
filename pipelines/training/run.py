"""A stage becomes a named, resumable run on Ray Train: its folder, its MLflow run, its checkpoints.

STORAGE/NAME/run.json              what the run is: stage, settings, MLflow run
STORAGE/NAME/checkpoint_STEP/      weights and training state; the newest few (`checkpoints`)
STORAGE/NAME/metrics.jsonl         its curves, also before MLflow has them
STORAGE/NAME/unreadable.jsonl      clips that could not be read, if any
STORAGE/NAME/{model,student}.safetensors, summary.txt   the result
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.networks.weights import costs_of
from pipelines.runtime.session import base_folder, new_name
from pipelines.runtime.start_checks import check_start
from pipelines.settings.recipe import changed, config_fingerprint, flatten, to_yaml
from pipelines.shards.folder import describe_shards, whole_file
from pipelines.shards.reading import describe_skipped
from pipelines.tracking import runs as tracking
from pipelines.tracking.metric_log import drain
from pipelines.training.checkpoints import CheckpointFolder
from pipelines.training.config import RunConfig
from pipelines.training.progress import Bars, Listeners
from pipelines.training.stage import Stage
from pipelines.training.worker import Interval, Metrics, ignore
from pipelines.training.workers import metrics_file, read_unreadable, train_here, train_on_workers, unreadable_file
from t3d_core.training.schedules import linearly_scaled

# How long the end of a run waits for an MLflow server that does not answer.
_MLFLOW_PATIENCE_SECONDS = 600.0
# What may change when a run goes on: where it lies and what it runs on, not what it computes.
_RESUMABLE = (
    *("storage", "name", "scaling", "failure", "tracking", "checkpoint", "log_every_steps"),
    *("data.shards", "data.prepare", "data.fingerprint", "register", "alias", "folds"),
    *("compute.recompute", "compute.compile", "compute.debug", "model.transition_forms", "checks", "probe"),
    *("cache.num_workers", "cache.cpus_per_worker", "cache.use_gpu"),
)


@dataclass(frozen=True)
class Audience:
    """For whom a run is trained: people at a terminal, or a search.

    Attributes:
        sees_bars: where the run is, and a progress bar an epoch.
        validated: called with the step and the metrics of every validation, in the process that called `fit`.
        run_name: of the MLflow run; none: the folder's.
        tags: of the MLflow run, beside its own.
        interval: the part of the run that is to be trained now; none: all of it.
    """

    sees_bars: bool = True
    validated: Callable[[int, Metrics], None] = ignore
    run_name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    interval: Interval | None = None


PEOPLE = Audience()


@dataclass(frozen=True)
class RunFolder:
    """One run's own folder, the MLflow run that records it, and what it ended with when it has ended before."""

    path: Path
    run: tracking.Run
    summary: str | None

    def close(self, summary: str) -> str:
        """Keep the closing summary: started again, the run has nothing left to do but to say it."""
        with whole_file(_summary_file(self.path)) as partial:
            partial.write_text(summary)
        return summary


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
    run: tracking.Run

    def describe_losses(self) -> list[str]:
        """What was not read, where something was: a line for the summary."""
        if self.unreadable is None:
            return []
        num_clips, num_videos, path = self.unreadable
        return [f"not read: {num_clips} clips of {num_videos} videos, see {path}; the steps went on without them"]


def check_surroundings(config: RunConfig, *, read: Sequence[Path] = ()) -> None:
    """See that a run can start, as `check_start`, which reads `read` beside its storage."""
    base = base_folder()
    check_start(
        tracking_uri=tracking.resolve_tracking_uri(config.tracking.uri, base=base),
        num_workers=config.scaling.fewest_workers(),
        resources_of_worker=config.scaling.resources_of_worker(),
        written=base / config.storage,
        read=read,
    )


@contextlib.contextmanager
def open_run(
    stage: Stage,
    *,
    kind: str,
    shards: Sequence[Path],
    tags: Mapping[str, str] = PEOPLE.tags,
    run_name: str | None = None,
) -> Iterator[RunFolder]:
    """Make the folder and the MLflow run of the stage's name, or take up those of an earlier start of it.

    The MLflow run ends as FINISHED, or as FAILED or KILLED when an exception leaves the block.

    Args:
        stage: what is trained, on which rows.
        kind: name of the job, a tag of the MLflow run.
        shards: the folders that the rows are from.
        tags: more tags of the MLflow run.
        run_name: of the MLflow run; none: the folder's.

    Raises:
        ValueError: the name belongs to a run with other settings or shards, or to one that another job is at work on;
            or other rows can be read than at its first start.
    """
    config = stage.config
    base = base_folder()
    path = base / config.storage / (config.name or new_name(kind))
    tracking_uri = tracking.resolve_tracking_uri(config.tracking.uri, base=base)
    descriptions = {shard_folder: describe_shards(shard_folder) for shard_folder in shards}
    fingerprint = _fingerprint(config, list(descriptions.values()))
    known = _read_run_file(path)
    if known is not None and known["fingerprint"] != fingerprint:
        raise ValueError(
            f"run {path.name!r} in {path.parent} was made with other settings or shards (fingerprint "
            f"{known['fingerprint'][:12]}, now {fingerprint[:12]}; see {path / 'recipe.yaml'}): give another --name"
        )
    rows = _describe_rows(stage)
    if known is not None and "rows" not in known:
        raise ValueError(f"run {path.name!r} in {path.parent} was begun by an older version: give another --name")
    if known is not None and known["rows"] != rows:
        raise ValueError(_describe_other_rows(stage, path, known=known["rows"], now=rows))
    with alone_in(path):
        run = tracking.start_run(
            tracking_uri=tracking_uri,
            experiment=config.tracking.experiment,
            run_name=run_name or path.name,
            run_id=known["mlflow_run_id"] if known else None,
            tags={"stage": kind, "recipe_fingerprint": fingerprint, **tracking.commit_tag(), **tags},
            mark=folder_mark(path),
        )
        with run:
            if known is None:
                known = {"stage": kind, "fingerprint": fingerprint, "rows": rows, "mlflow_run_id": run.run_id}
                _write_run_files(path, stage, known, run=run)
            for shard_folder, description in descriptions.items():
                run.log_dataset(description["dataset"], description["fingerprint"], str(shard_folder))
            yield RunFolder(path, run, _read_summary(path, weights_name=stage.weights_name))


def _summary_file(path: Path) -> Path:
    return path / "summary.txt"


def _read_summary(path: Path, *, weights_name: str) -> str | None:
    file = _summary_file(path)
    return file.read_text() if file.is_file() and (path / weights_name).is_file() else None


@contextlib.contextmanager
def alone_in(path: Path) -> Iterator[None]:
    """Hold a run's folder for the only job that works there; the lock ends with the process, however it ends.

    Raises:
        ValueError: another one does.
    """
    path.mkdir(parents=True, exist_ok=True)
    with (path / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"run {path.name!r} in {path.parent} is being trained by {file.read()}: wait for it, or give another "
                "--name"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _fingerprint(config: RunConfig, descriptions: Sequence[dict[str, Any]]) -> str:
    """What a run computes follows from these alone: the settings that count, and what is in the shards."""
    parts = [config_fingerprint(config, exclude=_RESUMABLE)]
    for description in descriptions:
        parts += [description["fingerprint"], description["contents"]]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _read_run_file(path: Path) -> dict[str, Any] | None:
    file = path / "run.json"
    return json.loads(file.read_text()) if file.is_file() else None


def run_id_of(path: Path) -> str | None:
    """The MLflow run of a run's folder; none before it has one."""
    known = _read_run_file(path)
    return known["mlflow_run_id"] if known else None


def folder_mark(path: Path) -> str:
    """What tells a folder from every other, also from one of the same name that was deleted; made when it is missing.

    A run that MLflow has, and whose id a kill kept out of the folder, is found again by it.
    """
    file = path / ".mark"
    if not file.is_file():
        with whole_file(file) as partial:
            partial.write_text(uuid.uuid4().hex)
    return file.read_text()


def _describe_rows(stage: Stage) -> dict[str, dict[str, Any]]:
    """The rows that train and those that validate, as `run.json` keeps them: the order of clips follows from them."""
    return {
        split: {"count": len(index), "fingerprint": index.fingerprint()}
        for split, index in (("train", stage.train_index), ("val", stage.val_index))
    }


def _describe_other_rows(stage: Stage, path: Path, *, known: dict[str, Any], now: dict[str, Any]) -> str:
    counts = ", ".join(f"{split} {known[split]['count']} then and {now[split]['count']} now" for split in known)
    lost = "; ".join(describe_skipped(list({*stage.train_index.skipped, *stage.val_index.skipped})))
    return (
        f"run {path.name!r} in {path.parent} began on other rows ({counts}), and its clips would come in another order"
        f"{f'; {lost}' if lost else ''}: bring the shards back as they were, or give another --name"
    )


def _write_run_files(path: Path, stage: Stage, known: dict[str, Any], *, run: tracking.Run) -> None:
    """Describe a run in MLflow and in its folder; `run.json` comes last, for what has it is whole."""
    config = stage.config
    run.log_metrics(costs_of(stage.card), step=0)
    run.log_params(flatten(config))
    run.log_text(to_yaml(config), "recipe.yaml")
    (path / "recipe.yaml").write_text(to_yaml(config))
    with whole_file(path / "run.json") as partial:
        partial.write_text(json.dumps(known, indent=1))


def fit(stage: Stage, folder: RunFolder, audience: Audience = PEOPLE) -> FinishedRun:
    """Train `stage` to its end, going on from the newest checkpoint in `folder`.

    Raises:
        ValueError: the run cannot go on (a loss that is not finite, a full disk), or MLflow does not take its curves.
        PausedError: the audience's interval is over, and the run is not.
        Exception: what failed a worker, when that happened more often than `failure.max_failures` allows.
    """
    interval = audience.interval
    if interval is not None:
        stage = replace(stage, config=changed(stage.config, interval.settings))  # type: ignore[type-var]
    config = stage.config
    if (scaled := describe_scaled_rate(config)) is not None:
        print(scaled, flush=True)
    train = train_on_workers if config.scaling.most_workers() else train_here
    checkpoints = CheckpointFolder(folder.path, config.checkpoint.num_to_keep)
    newest = checkpoints.newest()
    checkpoints.sweep()
    if audience.sees_bars:
        _say_where(config, folder, newest=newest)
    with Bars(stage.order, epochs=config.epochs) as bars:
        show = bars.show if audience.sees_bars else ignore
        listeners = Listeners(show=show, validated=audience.validated)
        outcome = train(stage, checkpoints, folder.run, listeners, interval)
    if outcome.refusal is not None:
        with contextlib.suppress(ValueError):  # a server that is away must not hide why the run stopped
            drain(folder.run, metrics_file(folder.path), timeout_seconds=0.0)
        raise ValueError(outcome.refusal)
    drain(folder.run, metrics_file(folder.path), timeout_seconds=_MLFLOW_PATIENCE_SECONDS)
    if interval is not None and interval.until_epoch < config.epochs:
        raise tracking.PausedError(f"run {folder.path.name!r} waits at epoch {interval.until_epoch} of {config.epochs}")
    newest = checkpoints.newest()
    assert newest is not None, "the loop ends with a checkpoint"
    weights = copy_whole(newest / stage.weights_name, folder.path / stage.weights_name)
    folder.run.log_artifact(weights, artifact_path="weights")
    unreadable = _log_unreadable(folder)
    return FinishedRun(outcome.validations["initial"], outcome.validations["final"], weights, unreadable, folder.run)


def _say_where(config: RunConfig, folder: RunFolder, *, newest: Path | None) -> None:
    """Let people find a run while it is under way, take up one that they gave no name, and see whether it goes on."""
    remark = ""
    if newest is not None:
        remark = f" (goes on from {newest.name})"
    elif config.name is None:
        remark = f" (to take it up again: --name {folder.path.name})"
    print(f"run:     {folder.path}{remark}\nmlflow:  {folder.run.describe()}", flush=True)


def describe_scaled_rate(config: RunConfig) -> str | None:
    """Say which learning rate linear scaling makes of the given one; none where it is taken as it stands."""
    optimizer, batch_size = config.optimizer, config.global_batch_size
    if optimizer.base_batch_size is None:
        return None
    lr = linearly_scaled(optimizer.lr, global_batch_size=batch_size, base_batch_size=optimizer.base_batch_size)
    return f"learning rate {lr:g} for steps of {batch_size} ({optimizer.lr:g} is for {optimizer.base_batch_size})"


def _log_unreadable(folder: RunFolder) -> Unreadable | None:
    path = unreadable_file(folder.path)
    if not path.is_file():
        return None
    folder.run.log_artifact(path)
    videos = read_unreadable(path)
    return Unreadable(len(videos), len(set(videos)), path)


def copy_whole(source: Path, target: Path) -> Path:
    """Copy a file so that the target is complete or absent; give the target."""
    with whole_file(target) as partial:
        shutil.copyfile(source, partial)
    return target
