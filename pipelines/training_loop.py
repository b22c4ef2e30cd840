"""Batches become a trained network: one loop for every task, on one worker of several. It knows nothing of Ray.

The worker's surroundings come in as a `Worker`; tests and local runs give a plain one.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from pipelines.batches import TrainOrder
from pipelines.clip_loader import NumpyBatch
from pipelines.run_configs import OptimizerConfig, RunConfig, ScheduleConfig
from t3d_core.models.execution import Execution
from t3d_core.training.checkpoint import load_training_state, save_training_state
from t3d_core.training.optimization import Schedule, build_sgd
from t3d_core.training.tasks import Batch, Task
from t3d_core.video.transforms import normalize_clip

Metrics = dict[str, float]

_PADDING_COUNTS = ("num_padded_frames", "num_frames")


class Stage(Protocol):
    """What is trained on which batches: the part in which transfer and classification differ."""

    @property
    def config(self) -> RunConfig:
        """Settings of the run."""

    @property
    def weights_name(self) -> str:
        """File name of the result."""

    @property
    def order(self) -> TrainOrder:
        """Which rows each step sees."""

    def build_task(self) -> Task:
        """Make the network and its loss, with initial weights, on the CPU."""

    def train_batches(self, *, steps: range, rank: int, world_size: int) -> Iterator[NumpyBatch]:
        """This worker's batches of `steps`."""

    def validation_batches(self, *, rank: int, world_size: int) -> Iterator[NumpyBatch]:
        """This worker's share of the validation batches; the same batches for any number of workers."""

    def save_weights(self, task: Task, path: Path) -> None:
        """Write the part of the network that is kept, as a self-describing weights file."""


@dataclass
class Worker:
    """The surroundings of one worker.

    Attributes:
        rank: 0-based; worker 0 writes.
        world_size: number of workers.
        device: where the network lives.
        wrap: makes the network data-parallel.
        sum_over_workers: adds a tensor over all workers, in place.
        share_buffers: gives all workers the first one's buffers (running statistics), in place.
        report: takes the metrics and, on worker 0, a checkpoint folder; called by all workers equally often.
        log: takes metrics and the step; called on worker 0.
        show: takes a line of progress and the step; called on worker 0.
        checkpoint: folder of the checkpoint to go on from.
    """

    rank: int
    world_size: int
    device: torch.device
    wrap: Callable[[nn.Module], nn.Module]
    sum_over_workers: Callable[[torch.Tensor], None]
    share_buffers: Callable[[nn.Module], None]
    report: Callable[[Metrics, Path | None, int], None]
    log: Callable[[Metrics, int], None]
    show: Callable[[str, int], None]
    checkpoint: Path | None


def run_training_loop(stage: Stage, worker: Worker) -> dict[str, Metrics]:
    """Train from the start, or from the worker's checkpoint, to the end.

    Returns:
        `initial` and `final` validation metrics, the same on every worker.
    """
    return _Training(stage, worker).run()


class _Training:
    """The state of one run on one worker."""

    def __init__(self, stage: Stage, worker: Worker) -> None:
        config = stage.config
        torch.manual_seed(config.seed)
        self.stage, self.worker, self.config = stage, worker, config
        self.order = stage.order
        self.num_steps = self.order.num_steps(config.epochs)
        self.task = stage.build_task()
        self.task.to(worker.device)
        self.execution = Execution(**config.compute.model_dump())
        self.execution.prepare(self.task.net, num_frames=config.clip.num_frames, size=config.clip.crop_size)
        self.net = worker.wrap(self.task.net)
        self.optimizer = _build_optimizer(self.task.net, config.optimizer)
        self.schedule = _build_schedule(self.optimizer, config.schedule, num_steps=self.num_steps)
        self.step = 0
        self.validations: dict[str, Metrics] = {}
        if worker.checkpoint is not None:
            self._restore(worker.checkpoint)

    def run(self) -> dict[str, Metrics]:
        if "initial" not in self.validations:
            self.validations["initial"] = self._validate()
        meter = _Meter()
        batches = self.stage.train_batches(
            steps=range(self.step, self.num_steps), rank=self.worker.rank, world_size=self.worker.world_size
        )
        first_step = self.step
        for numpy_batch in _timed(batches, meter):
            if self.step == first_step:
                self._log({"throughput/time_to_first_batch_seconds": meter.waiting_seconds})
            self._train_step(numpy_batch, meter)
            self._after_step(meter)
        return self.validations

    def _train_step(self, numpy_batch: NumpyBatch, meter: "_Meter") -> None:
        started = time.perf_counter()
        # Dropout follows from the step and the worker, so that a run that goes on draws what it would have drawn.
        torch.manual_seed((self.config.seed * 1_000_003 + self.step) * 4_099 + self.worker.rank)
        self.task.net.train()
        with self.execution.autocast(self.worker.device):
            output = self.task(self.net, self._to_device(numpy_batch))
        self.optimizer.zero_grad(set_to_none=True)
        output.loss.backward()
        self.optimizer.step()
        meter.add(output.counts, numpy_batch, lr=self.optimizer.param_groups[0]["lr"])
        meter.training_seconds += time.perf_counter() - started
        self.step += 1
        if self.step < self.num_steps:
            self.schedule.after_step()

    def _after_step(self, meter: "_Meter") -> None:
        epoch_before, epoch = self.order.epoch(self.step - 1), self.order.epoch(self.step)
        is_last = self.step == self.num_steps
        if self.step % self.config.log_every_steps == 0 or is_last:
            self._log_training(meter)
        for _ in range(epoch - epoch_before):
            self.schedule.after_epoch()
        every = self.config.validate_every_epochs
        if is_last or epoch // every > epoch_before // every:
            self.validations["final"] = self._validate()
            self.schedule.after_validation(self.validations["final"]["loss"])
        if is_last or self.step % self.config.checkpoint.every_steps == 0:
            self._checkpoint()

    def _log_training(self, meter: "_Meter") -> None:
        counts = self._summed(meter.counts)
        share_padded = counts.pop("num_padded_frames") / counts.pop("num_frames")
        metrics = {f"train/{name}": value for name, value in self.task.metrics(counts).items()}
        metrics["train/padded_share"] = share_padded
        metrics["lr"] = meter.lr
        metrics["epoch"] = self.step * self.order.global_batch_size / self.order.num_rows
        metrics |= meter.speed(world_size=self.worker.world_size)
        meter.restart()
        self._log(metrics)
        if self.worker.rank == 0:
            shown = {name.removeprefix("train/"): value for name, value in metrics.items() if name.startswith("train/")}
            self.worker.show(
                f"loss {shown.pop('loss'):.3f} " + " ".join(f"{k} {v:.3f}" for k, v in shown.items()), self.step
            )

    @torch.no_grad()
    def _validate(self) -> Metrics:
        """Run the unwrapped network over this worker's validation batches and add the counts of all workers."""
        self.worker.share_buffers(self.task.net)
        self.task.net.eval()
        total: dict[str, float] = {}
        for numpy_batch in self.stage.validation_batches(rank=self.worker.rank, world_size=self.worker.world_size):
            with self.execution.autocast(self.worker.device):
                output = self.task(self.task.net, self._to_device(numpy_batch))
            _add(total, {name: float(count) for name, count in output.counts.items()})
            _add(total, _padding(numpy_batch))
        counts = self._summed(total)
        share_padded = counts.pop("num_padded_frames") / counts.pop("num_frames")
        metrics = {**self.task.metrics(counts), "padded_share": share_padded}
        self._log({f"val/{name}": value for name, value in metrics.items()})
        return metrics

    def _summed(self, counts: dict[str, float]) -> dict[str, float]:
        names = (*self.task.count_names, *_PADDING_COUNTS)
        values = torch.tensor([counts.get(name, 0.0) for name in names], dtype=torch.float64)
        values = values.to(self.worker.device)
        self.worker.sum_over_workers(values)
        return dict(zip(names, values.tolist(), strict=True))

    def _to_device(self, batch: NumpyBatch) -> Batch:
        """Move a batch to the device and only there make floats of the clips."""
        tensors = {name: torch.from_numpy(array.copy()).to(self.worker.device) for name, array in batch.items()}
        clip_BTHWC, clip = tensors.pop("clip_BTHWC"), self.config.clip
        return tensors | {"clip_BCTHW": normalize_clip(clip_BTHWC, mean=clip.mean, std=clip.std)}

    def _log(self, metrics: Metrics) -> None:
        if self.worker.rank == 0:
            self.worker.log(metrics, self.step)

    def _checkpoint(self) -> None:
        metrics = self.validations.get("final", self.validations["initial"])
        if self.worker.rank != 0:
            self.worker.report(metrics, None, self.step)
            return
        with tempfile.TemporaryDirectory() as folder:
            save_training_state(self._state(), Path(folder))
            self.stage.save_weights(self.task, Path(folder) / self.stage.weights_name)
            self.worker.report(metrics, Path(folder), self.step)

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "validations": self.validations,
            "net": self.task.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def _restore(self, folder: Path) -> None:
        state = load_training_state(folder)
        self.task.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step, self.validations = state["step"], state["validations"]


class _Meter:
    """Sums counts and times between two points of the log."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.counts: dict[str, float] = {}
        self.num_clips, self.lr = 0, 0.0
        self.waiting_seconds, self.training_seconds = 0.0, 0.0

    def add(self, counts: dict[str, torch.Tensor], batch: NumpyBatch, *, lr: float) -> None:
        _add(self.counts, {name: float(count) for name, count in counts.items()})
        _add(self.counts, _padding(batch))
        self.num_clips += len(batch["clip_BTHWC"])
        self.lr = lr

    def speed(self, *, world_size: int) -> Metrics:
        """Clips a second over all workers, and the share of the time of steps in which this worker waited for data."""
        seconds = self.waiting_seconds + self.training_seconds
        return {
            "throughput/clips_per_second": world_size * self.num_clips / seconds,
            "throughput/data_wait_share": self.waiting_seconds / seconds,
        }


def _timed(batches: Iterator[NumpyBatch], meter: _Meter) -> Iterator[NumpyBatch]:
    """Yield the batches and add the time spent waiting for each to the meter."""
    iterator = iter(batches)
    while True:
        asked = time.perf_counter()
        batch = next(iterator, None)
        meter.waiting_seconds += time.perf_counter() - asked
        if batch is None:
            return
        yield batch


def _padding(batch: NumpyBatch) -> dict[str, float]:
    batch_size, num_frames = batch["clip_BTHWC"].shape[:2]
    return {"num_padded_frames": float(batch["num_padded_B"].sum()), "num_frames": float(batch_size * num_frames)}


def _add(total: dict[str, float], more: dict[str, float]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0.0) + value


def _build_optimizer(net: nn.Module, config: OptimizerConfig) -> torch.optim.SGD:
    return build_sgd(
        net.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        is_nesterov=config.nesterov,
        weight_decay=config.weight_decay,
    )


def _build_schedule(optimizer: torch.optim.Optimizer, config: ScheduleConfig, *, num_steps: int) -> Schedule:
    return Schedule(
        optimizer,
        config.kind,
        num_steps=num_steps,
        every_epochs=config.every_epochs,
        factor=config.factor,
        patience=config.patience,
    )
