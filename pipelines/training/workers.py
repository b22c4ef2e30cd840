"""A stage is trained in processes of Ray Train, which restarts them after a failure, or in this process."""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.collective
import ray.train.torch
import torch
from ray.exceptions import RayError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.queue import Queue

from pipelines.runtime import pools
from pipelines.runtime.ray_logging import quiet
from pipelines.tracking.metric_log import MetricLog
from pipelines.tracking.runs import Run
from pipelines.training.checkpoints import CheckpointFolder
from pipelines.training.config import RunConfig, ScalingConfig
from pipelines.training.loop import TrainingOutcome, run_training_loop
from pipelines.training.progress import Listeners, Mailbox
from pipelines.training.prometheus import RunGauges
from pipelines.training.run_folder import metrics_file, unreadable_file
from pipelines.training.stage import Stage
from pipelines.training.watchdog import Watchdog
from pipelines.training.worker import Interval, Metrics, Worker, keep

# Ray Train's controller ends a worker that does not answer for so long, such as a stopped process.
_HEALTH_TIMEOUT_VARIABLE = "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"
# How long a worker waits for MLflow at its end; the driver sends the rest.
_LAST_METRICS_SECONDS = 10.0


def train_here(
    stage: Stage,
    checkpoints: CheckpointFolder,
    run: Run,
    listeners: Listeners,
    interval: Interval | None,
) -> TrainingOutcome:
    """Run the loop in this process, without workers; folders and resuming are the same."""
    config, folder = stage.config, checkpoints.root
    with _metric_log(folder, run) as log:
        worker = Worker(
            checkpoints=checkpoints,
            checkpoint=checkpoints.newest(),
            device=torch.device("cuda" if config.scaling.use_gpu else "cpu"),
            note_unreadable=_unreadable_writer(folder),
            log=log,
            interval=interval,
            **listeners,
        )
        return run_training_loop(stage, worker)


def train_on_workers(
    stage: Stage,
    checkpoints: CheckpointFolder,
    run: Run,
    listeners: Listeners,
    interval: Interval | None,
) -> TrainingOutcome:
    """Run the loop on Ray Train's workers, resuming from the newest checkpoint after every failure.

    Raises:
        Exception: the error of a worker, when workers failed more often than `failure.max_failures` allows.
    """
    config, folder = stage.config, checkpoints.root
    os.environ.setdefault(_HEALTH_TIMEOUT_VARIABLE, str(config.failure.hang_seconds))
    with Mailbox(listeners) as mailbox:
        arguments = {
            "stage": ray.put(stage),
            "folder": str(folder),
            "run": run,
            "queue": mailbox.queue,
            "interval": interval,
        }
        return _fit(_trainer_of(config, arguments, folder))


def _trainer_of(config: RunConfig, arguments: dict[str, Any], folder: Path) -> TorchTrainer:
    return TorchTrainer(
        _train_on_worker,
        train_loop_config=arguments,
        torch_config=TorchConfig(timeout_s=max(1, round(config.failure.hang_seconds))),
        scaling_config=ray.train.ScalingConfig(
            num_workers=num_workers_that_leave_a_cpu(config.scaling),
            use_gpu=config.scaling.use_gpu,
            resources_per_worker=dict(config.scaling.resources_per_worker),
            label_selector=pools.selector("train") or None,
        ),
        run_config=ray.train.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            failure_config=ray.train.FailureConfig(max_failures=config.failure.max_failures),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
            callbacks=[QuietController()],
        ),
    )


class QuietController(ray.train.UserCallback):
    """Calls `quiet` in the process of Ray Train's controller, which unpickles the callbacks of a run."""

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return _quiet_controller, ()


def _quiet_controller() -> QuietController:
    quiet()
    return QuietController()


def _fit(trainer: TorchTrainer) -> TrainingOutcome:
    try:
        with _ctrl_c_interrupts():
            return trainer.fit().return_value
    except ray.train.WorkerGroupError as error:
        # Its own text is the tracebacks of all workers; the first worker's error alone is clearer.
        for failure in error.worker_failures.values():
            raise getattr(failure, "_base_exc", failure) from error
        raise


@contextlib.contextmanager
def _ctrl_c_interrupts() -> Iterator[None]:
    """Turn Ctrl-C in `fit` into KeyboardInterrupt: Ray Train's handler calls `sys.exit`, and stays installed."""
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as left:
        raise KeyboardInterrupt from left
    finally:
        if is_main:
            signal.signal(signal.SIGINT, handler)


def num_workers_that_leave_a_cpu(scaling: ScalingConfig) -> int | tuple[int, int]:
    """The workers to ask for; an elastic run leaves one CPU for decoding, whatever an autoscaler adds."""
    if isinstance(scaling.num_workers, int):
        return scaling.num_workers
    room = pools.room_for_workers(scaling.resources_of_worker())
    return scaling.fewest_workers(), max(scaling.fewest_workers(), min(scaling.most_workers(), room))


def _train_on_worker(arguments: dict[str, Any]) -> TrainingOutcome:
    """Run the loop with the surroundings that Ray Train gives a worker."""
    quiet()
    stage: Stage = ray.get(arguments["stage"])
    folder, config = Path(arguments["folder"]), stage.config
    checkpoints = CheckpointFolder(folder, config.checkpoint.num_to_keep)
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    share = ray.train.collective.broadcast_from_rank_zero if world_size > 1 else keep
    with contextlib.ExitStack() as stack:
        watchdog = stack.enter_context(Watchdog(config.failure.hang_seconds))
        newest = share(checkpoints.newest() if rank == 0 else None)
        worker = Worker(
            checkpoints=checkpoints,
            checkpoint=newest,
            device=ray.train.torch.get_device(),
            rank=rank,
            world_size=world_size,
            wrap=ray.train.torch.prepare_model,
            sum_over_workers=torch.distributed.all_reduce if world_size > 1 else keep,
            share_buffers=_broadcast_buffers if world_size > 1 else keep,
            share=share,
            gather=_gather if world_size > 1 else keep,
            is_preempted=lambda: ray.train.get_preemption_info() is not None,
            note_progress=watchdog.note_progress,
            note_unreadable=_unreadable_writer(folder),
            interval=arguments["interval"],
        )
        if rank == 0:
            checkpoints.sweep()
            worker.log = stack.enter_context(_metric_log(folder, arguments["run"]))
            worker.show = _sender("show", arguments["queue"])
            worker.validated = _sender("validated", arguments["queue"])
        return run_training_loop(stage, worker)


def _broadcast_buffers(net: torch.nn.Module) -> None:
    for buffer in net.buffers():
        torch.distributed.broadcast(buffer, src=0)


def _gather(values: list[Any]) -> list[Any]:
    gathered: list[list[Any]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(gathered, values)
    return [value for of_worker in gathered for value in of_worker]


@contextlib.contextmanager
def _metric_log(folder: Path, run: Run) -> Iterator[Callable[[Metrics, int], None]]:
    log = MetricLog(run, metrics_file(folder))
    with RunGauges(folder.name) as gauges:

        def write(metrics: Metrics, step: int) -> None:
            log.log(metrics, step=step)
            gauges.show(metrics, step=step)

        try:
            yield write
        finally:
            with contextlib.suppress(OSError):  # on a full disk closing fails as logging did, whose error is clearer
                log.close(timeout_seconds=_LAST_METRICS_SECONDS)


def _unreadable_writer(folder: Path) -> Callable[[str, str], None]:
    def write(video_id: str, reason: str) -> None:
        with unreadable_file(folder).open("a") as file:  # one short line an append: workers do not mix
            file.write(json.dumps({"video_id": video_id, "reason": reason}) + "\n")

    return write


def _sender(listener: str, queue: Queue) -> Callable[[int, Metrics], None]:
    def send(step: int, metrics: Metrics) -> None:
        with contextlib.suppress(RayError):  # a bar without a reader is no reason to stop
            queue.put((listener, step, metrics))

    return send
