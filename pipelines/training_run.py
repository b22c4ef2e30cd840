"""A stage becomes a named, resumable run on Ray Train: its folder, its MLflow run, its checkpoints.

STORAGE/NAME/run.json              what the run is: stage, settings, MLflow run
STORAGE/NAME/checkpoint_STEP/      weights and training state; the newest few
STORAGE/NAME/{model,student}.safetensors   the result
"""

import contextlib
import datetime
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.train import Checkpoint, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.util.queue import Queue
from tqdm import tqdm

from pipelines import tracking
from pipelines.recipe import config_fingerprint, flatten, to_yaml
from pipelines.run_configs import RunConfig
from pipelines.session import base_folder, quiet
from pipelines.shards import describe_shards
from pipelines.training_loop import Metrics, Stage, Worker, run_training_loop

# What may change when a run goes on: where it lies and what it runs on, not what it computes.
_RESUMABLE = (
    *("storage", "name", "scaling", "failure", "tracking", "checkpoint", "log_every_steps"),
    *("data.shards", "data.prepare", "register", "alias"),
    *("compute.recompute", "compute.compile", "compute.debug", "model.transition_forms"),
)


@dataclass(frozen=True)
class RunFolder:
    """One run's own folder, and the MLflow run that records it."""

    path: Path
    run: tracking.Run


@dataclass(frozen=True)
class FinishedRun:
    """A run that reached its end: validation metrics before and after, the weights, the MLflow run."""

    initial: Metrics
    final: Metrics
    weights: Path
    run: tracking.Run


def new_name(stage: str) -> str:
    """Make a name that no earlier run has: the stage and the time."""
    return f"{stage}-{datetime.datetime.now():%Y%m%d-%H%M%S}"


@contextlib.contextmanager
def open_run(config: RunConfig, *, stage: str, shards: Sequence[Path]) -> Iterator[RunFolder]:
    """Make the folder and the MLflow run of `config.name`, or take up those of an earlier start of it.

    The MLflow run ends as FINISHED, or as FAILED or KILLED when an exception leaves the block.

    Raises:
        ValueError: the name belongs to a run with other settings or shards, or that keeps its checkpoints otherwise.
    """
    base = base_folder()
    path = base / config.storage / (config.name or new_name(stage))
    tracking_uri = tracking.resolve_tracking_uri(config.tracking.uri, base=base)
    descriptions = {shard_folder: describe_shards(shard_folder) for shard_folder in shards}
    fingerprint = _fingerprint(config, list(descriptions.values()))
    known = _read_run_file(path)
    if known is not None and known["fingerprint"] != fingerprint:
        raise ValueError(
            f"run {path.name!r} in {path.parent} was made with other settings or shards (fingerprint "
            f"{known['fingerprint'][:12]}, now {fingerprint[:12]}; see {path / 'recipe.yaml'}): give another --name"
        )
    if known is not None and known["is_local"] != (config.scaling.num_workers == 0):
        raise ValueError(
            f"run {path.name!r} was started with scaling.num_workers {'0' if known['is_local'] else 'above 0'}, which "
            "keeps its checkpoints otherwise: go on in the same way, or give another --name"
        )
    run = tracking.start_run(
        tracking_uri=tracking_uri,
        experiment=config.tracking.experiment,
        run_name=path.name,
        run_id=known["mlflow_run_id"] if known else None,
        tags={"stage": stage, "recipe_fingerprint": fingerprint} | tracking.commit_tag(),
    )
    with run:
        if known is None:
            _write_run_files(path, config, stage=stage, fingerprint=fingerprint, run=run)
        for shard_folder, description in descriptions.items():
            run.log_dataset(shard_folder.name, description["fingerprint"], str(shard_folder))
        yield RunFolder(path, run)


def _fingerprint(config: RunConfig, descriptions: Sequence[dict[str, Any]]) -> str:
    """What a run computes follows from these alone: the settings that count, and what is in the shards."""
    parts = [config_fingerprint(config, exclude=_RESUMABLE)]
    for description in descriptions:
        parts += [description["fingerprint"], description["contents"]]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _read_run_file(path: Path) -> dict[str, Any] | None:
    file = path / "run.json"
    return json.loads(file.read_text()) if file.is_file() else None


def _write_run_files(path: Path, config: RunConfig, *, stage: str, fingerprint: str, run: tracking.Run) -> None:
    path.mkdir(parents=True, exist_ok=True)
    (path / "recipe.yaml").write_text(to_yaml(config))
    partial = path / "run.json.partial"
    known = {"stage": stage, "fingerprint": fingerprint, "mlflow_run_id": run.run_id}
    partial.write_text(json.dumps(known | {"is_local": config.scaling.num_workers == 0}, indent=1))
    os.replace(partial, path / "run.json")
    run.log_params(flatten(config))
    run.log_text(to_yaml(config), "recipe.yaml")


def fit(stage: Stage, folder: RunFolder) -> FinishedRun:
    """Train `stage` to its end on Ray Train, going on from the newest checkpoint in `folder`.

    Raises:
        Exception: what failed a worker, when that happened more often than `failure.max_failures` allows.
    """
    fit_stage = _fit_on_workers if stage.config.scaling.num_workers else _fit_here
    with _Progress(stage) as progress:
        validations, checkpoint = fit_stage(stage, folder, progress.queue)
    weights = folder.path / stage.weights_name
    with checkpoint.as_directory() as last:
        copy_whole(Path(last) / stage.weights_name, weights)
    folder.run.log_artifact(weights, artifact_path="weights")
    return FinishedRun(validations["initial"], validations["final"], weights, folder.run)


def copy_whole(source: Path, target: Path) -> Path:
    """Copy a file or folder so that the target is complete or absent; give the target."""
    partial = target.with_name(target.name + ".partial")
    if source.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial)
    else:
        shutil.copyfile(source, partial)
    os.replace(partial, target)
    return target


def _fit_on_workers(stage: Stage, folder: RunFolder, queue: Queue) -> tuple[dict[str, Metrics], Checkpoint]:
    config = stage.config
    trainer = TorchTrainer(
        _train_on_worker,
        train_loop_config={"stage": ray.put(stage), "run": folder.run, "queue": queue},
        scaling_config=ScalingConfig(
            num_workers=config.scaling.num_workers,
            use_gpu=config.scaling.use_gpu,
            resources_per_worker=dict(config.scaling.resources_per_worker),
        ),
        run_config=ray.train.RunConfig(
            name=folder.path.name,
            storage_path=str(folder.path.parent),
            failure_config=ray.train.FailureConfig(max_failures=config.failure.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=config.checkpoint.num_to_keep),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
    )
    try:
        result = trainer.fit()
    except ray.train.WorkerGroupError as error:
        # Its own text is the tracebacks of all workers; what the first of them met says more in one line.
        for failure in error.worker_failures.values():
            raise getattr(failure, "_base_exc", failure) from error
        raise
    assert result.checkpoint is not None, "the loop ends with a checkpoint"
    return result.return_value, result.checkpoint


def _train_on_worker(arguments: dict[str, Any]) -> dict[str, Metrics]:
    """Run the loop with the surroundings that Ray Train gives a worker."""
    quiet()
    stage: Stage = ray.get(arguments["stage"])
    context, latest = ray.train.get_context(), ray.train.get_checkpoint()
    world_size = context.get_world_size()
    with _as_folder(latest) as checkpoint:
        worker = Worker(
            rank=context.get_world_rank(),
            world_size=world_size,
            device=ray.train.torch.get_device(),
            wrap=ray.train.torch.prepare_model,
            sum_over_workers=_all_reduce if world_size > 1 else _keep,
            share_buffers=_broadcast_buffers if world_size > 1 else _keep,
            report=_report_to_ray,
            log=lambda metrics, step: arguments["run"].log_metrics(metrics, step=step),
            show=lambda line, step: arguments["queue"].put((line, step)),
            checkpoint=checkpoint,
        )
        return run_training_loop(stage, worker)


@contextlib.contextmanager
def _as_folder(checkpoint: Checkpoint | None) -> Iterator[Path | None]:
    if checkpoint is None:
        yield None
        return
    with checkpoint.as_directory() as folder:
        yield Path(folder)


def _all_reduce(values: torch.Tensor) -> None:
    torch.distributed.all_reduce(values)


def _broadcast_buffers(net: torch.nn.Module) -> None:
    for buffer in net.buffers():
        torch.distributed.broadcast(buffer, src=0)


def _keep(_: object) -> None:
    """One worker has nobody to add to or to share with."""


def _report_to_ray(metrics: Metrics, folder: Path | None, step: int) -> None:
    checkpoint = Checkpoint.from_directory(folder) if folder else None
    ray.train.report(metrics, checkpoint=checkpoint, checkpoint_dir_name=_checkpoint_name(step))


def _checkpoint_name(step: int) -> str:
    return f"checkpoint_{step:08d}"


def _fit_here(stage: Stage, folder: RunFolder, queue: Queue) -> tuple[dict[str, Metrics], Checkpoint]:
    """Run the loop in this process: no worker to start, the same folders and the same resume."""

    def kept() -> list[Path]:
        return sorted(folder.path.glob("checkpoint_????????"))

    def report(metrics: Metrics, checkpoint: Path | None, step: int) -> None:
        assert checkpoint is not None, "a single worker writes"
        target = folder.path / _checkpoint_name(step)
        shutil.rmtree(target, ignore_errors=True)
        copy_whole(checkpoint, target)
        for old in kept()[: -stage.config.checkpoint.num_to_keep]:
            shutil.rmtree(old)

    worker = Worker(
        rank=0,
        world_size=1,
        device=torch.device("cuda" if stage.config.scaling.use_gpu else "cpu"),
        wrap=lambda net: net,
        sum_over_workers=_keep,
        share_buffers=_keep,
        report=report,
        log=lambda metrics, step: folder.run.log_metrics(metrics, step=step),
        show=lambda line, step: queue.put((line, step)),
        checkpoint=kept()[-1] if kept() else None,
    )
    validations = run_training_loop(stage, worker)
    return validations, Checkpoint.from_directory(kept()[-1])


class _Progress(contextlib.AbstractContextManager):
    """A progress bar on the driver's terminal, told of steps by the first worker, wherever it runs."""

    def __init__(self, stage: Stage) -> None:
        self._bar = tqdm(total=stage.order.num_steps(stage.config.epochs), unit="step", desc="training")
        self.queue = Queue(actor_options={"num_cpus": 0})
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while (told := self.queue.get()) is not None:
            line, step = told
            self._bar.set_postfix_str(line, refresh=False)
            self._bar.update(step - self._bar.n)

    def __exit__(self, *_: object) -> None:
        self.queue.put(None)
        self._reader.join()
        self._bar.close()
        self.queue.shutdown()
