"""Batches become a trained network: one loop for every task, on one worker of several. It knows nothing of Ray.

A step is one global batch. Its micro-batches, dealt to the workers, add up their gradients, each weighed by its share
of the global batch: the same step for any number of workers, but for batch statistics and pairs (see `batches`).
"""

import contextlib
import itertools
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipelines.clips.loader import NumpyBatch
from pipelines.clips.stream import micro_batches
from pipelines.shards.index import ShardIndex
from pipelines.training.config import OptimizerConfig, RunConfig
from pipelines.training.meter import PADDING_COUNTS, Meter, add_counts, padding
from pipelines.training.stage import Stage
from pipelines.training.worker import Metrics, Worker
from t3d_core.models.execution import Execution
from t3d_core.training.averaging import WeightAverage, measure_batch_norms
from t3d_core.training.checkpoint import load_training_state, save_training_state
from t3d_core.training.optimization import Schedule, build_sgd
from t3d_core.training.schedules import linearly_scaled
from t3d_core.training.tasks import Batch
from t3d_core.video.augmentation import ColorAugmentation
from t3d_core.video.transforms import normalize_clip

_SHOWN_EVERY_SECONDS = 1.0
# Steps without a single clip that can be read after which a run stops: its storage has gone.
_MAX_UNREAD_STEPS = 10
# Clips that are named when a step went wrong.
_MAX_NAMED_CLIPS = 64


class TrainingOutcome(NamedTuple):
    """How a run ended, the same on every worker.

    Attributes:
        validations: `initial` and `final` metrics.
        refusal: why it stopped before its end, where starting again would not help; none at the end.
    """

    validations: dict[str, Metrics]
    refusal: str | None = None


def run_training_loop(stage: Stage, worker: Worker) -> TrainingOutcome:
    """Train from the start, or from the worker's checkpoint, to the end."""
    training = _Training(stage, worker)
    try:
        training.run()
    except _StopError as stop:
        return TrainingOutcome(training.validations, str(stop))
    return TrainingOutcome(training.validations)


class _StopError(Exception):
    """The run cannot go on; raised by all workers at the same step."""


class _Training:
    """The state of one run on one worker."""

    def __init__(self, stage: Stage, worker: Worker) -> None:
        config = stage.config
        torch.manual_seed(config.seed)
        self.stage, self.worker, self.config = stage, worker, config
        self.order = stage.order
        self.num_steps = self.order.num_steps(config.epochs)
        self.last_step = self.num_steps
        if worker.interval is not None:
            self.last_step = min(self.num_steps, self.order.steps_before(worker.interval.until_epoch))
        self.places = micro_batches(
            config.global_batch_size, size=config.micro_batch_size, rank=worker.rank, world_size=worker.world_size
        )
        self.share = sum(map(len, self.places)) / config.global_batch_size
        self.task = stage.build_task()
        self.task.to(worker.device)
        if config.compute.sync_batch_norm:
            self.task.net = nn.SyncBatchNorm.convert_sync_batchnorm(self.task.net)
        self.execution = _execution_of(config)
        self.execution.prepare(self.task.net, num_frames=config.clip.num_frames, size=config.clip.crop_size)
        self.net = worker.wrap(self.task.net)
        self.parameters = [parameter for parameter in self.task.net.parameters() if parameter.requires_grad]
        self.average = WeightAverage(self.task.net, decay=config.ema_decay) if config.ema_decay else None
        self.optimizer = _build_optimizer(self.parameters, config.optimizer, batch_size=config.global_batch_size)
        self.schedule = _build_schedule(self.optimizer, config, steps_an_epoch=self.num_steps / config.epochs)
        self.colors = _colors_of(config)
        self.step = 0
        self.validations: dict[str, Metrics] = {}
        self.was_preempted = False
        self.num_unread_steps = 0
        self.last_shown = -math.inf
        self.began, self.worker_seconds_before = time.monotonic(), 0.0
        if worker.checkpoint is not None:
            self._restore(worker.checkpoint)

    def run(self) -> None:
        if "initial" not in self.validations:
            self.validations["initial"] = self._validate()
        meter, first_step = Meter(), self.step
        self._log_new_settings()
        batches = self._noted(self.stage.train_batches(steps=range(self.step, self.last_step), places=self.places))
        while self.step < self.last_step and not self.schedule.has_ended:
            with meter.step():
                self._train_step(batches, meter)
            if self.step == first_step + 1:
                assert meter.first_wait_seconds is not None, "a step has a batch"
                self._log({"throughput/time_to_first_batch_seconds": meter.first_wait_seconds})
            self._after_step(meter)

    def _log_new_settings(self) -> None:
        settings = {} if self.worker.interval is None else self.worker.interval.settings
        numbers = {name: value for name, value in settings.items() if isinstance(value, int | float)}
        self._log({f"setting/{name}": float(value) for name, value in numbers.items()})

    def _train_step(self, batches: Iterator[NumpyBatch], meter: Meter) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        losses: list[tuple[torch.Tensor, NumpyBatch]] = []
        for place in self.places:
            batch, weight = self._readable(meter.next(batches), meter)
            with self._synchronised(place is self.places[-1]):
                losses.append((self._backward(batch, weight, place, meter), batch))
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        meter.gradient_norm = norm.item()
        if not math.isfinite(meter.gradient_norm):
            raise _StopError(self._describe_not_finite(losses))
        self._check_that_clips_come([batch for _, batch in losses], gradient_norm=meter.gradient_norm)
        if self.config.optimizer.clip_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.config.optimizer.clip_grad_norm, norm)
        meter.lr = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.task.net)
        self.step += 1
        if self.step < self.num_steps:
            self.schedule.after_step()

    def _check_that_clips_come(self, batches: list[NumpyBatch], *, gradient_norm: float) -> None:
        """Stop a run whose storage has gone, before the schedule runs off; a step without clips has no gradient."""
        num_read = torch.tensor(float(sum((batch["reason_B"] == "").sum() for batch in batches)))
        if gradient_norm == 0.0:  # the same on all workers: only then do they ask each other
            num_read = num_read.to(self.worker.device)
            self.worker.sum_over_workers(num_read)
        self.num_unread_steps = 0 if num_read > 0 or gradient_norm > 0 else self.num_unread_steps + 1
        if self.num_unread_steps == _MAX_UNREAD_STEPS:
            newest = self.worker.checkpoints.newest()
            raise _StopError(
                f"no clip of {_MAX_UNREAD_STEPS} steps in a row, up to step {self.step + 1}, can be read "
                f"({batches[0]['reason_B'][0]}, for one). The last checkpoint is "
                f"{newest or 'none: the run had not come to one'}. See that the folders "
                "of data.shards can be read, then start again with the same --name"
            )

    def _backward(self, batch: NumpyBatch, weight: float, place: range, meter: Meter) -> torch.Tensor:
        self._seed(self.step, place)
        # Blank clips stay out of the running statistics (but SyncBatchNorm waits for every worker).
        self.task.net.train(weight > 0 or self.config.compute.sync_batch_norm)
        with self.execution.autocast(self.worker.device):
            output = self.task(self.net, self._to_device(batch, is_training=True))
        # DDP takes the mean over workers; the step wants the sum of their shares.
        (output.loss * (weight * self.worker.world_size)).backward()
        if weight > 0:
            meter.add(output.counts, batch)
        return output.loss.detach()

    def _seed(self, step: int, place: range) -> None:
        """Let what is random on the device follow from the step and the place in the global batch.

        A run that goes on, on however many workers, then draws what it would have drawn.
        """
        torch.manual_seed((self.config.seed * 1_000_003 + step) * 4_099 + place.start)

    def _synchronised(self, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """Let workers exchange gradients once a step, with the last micro-batch."""
        if is_last or not isinstance(self.net, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.net.no_sync()

    def _readable(self, batch: NumpyBatch, meter: Meter) -> tuple[NumpyBatch, float]:
        """Drop the clips that could not be read; give the rest and their share of the global batch."""
        is_read_B = self._note_unreadable(batch, self.stage.train_index)
        add_counts(meter.counts, {"num_unreadable": float((~is_read_B).sum())})
        if is_read_B.sum() < min(2, len(is_read_B)):  # too few for batch norm: the step goes on without them
            return batch, 0.0
        batch = {name: values[is_read_B] for name, values in batch.items()} if not is_read_B.all() else batch
        return batch, int(is_read_B.sum()) / self.config.global_batch_size

    def _note_unreadable(self, batch: NumpyBatch, index: ShardIndex) -> np.ndarray:
        is_read_B = batch["reason_B"] == ""
        for row, reason in zip(batch["row_B"][~is_read_B], batch["reason_B"][~is_read_B], strict=True):
            self.worker.note_unreadable(index.video_id_N[row], str(reason))
        return is_read_B

    def _describe_not_finite(self, losses: list[tuple[torch.Tensor, NumpyBatch]]) -> str:
        """Name the clips of the micro-batches whose loss is not finite, or of all when the losses are."""
        named = self.worker.gather(self._video_ids([batch for loss, batch in losses if not torch.isfinite(loss)]))
        what = "loss" if named else "gradient"
        if not named:
            named = self.worker.gather(self._video_ids([batch for _, batch in losses]))
        newest = self.worker.checkpoints.newest()
        return (
            f"the {what} is not finite at step {self.step + 1} (epoch {self.order.epoch(self.step) + 1}, learning rate "
            f"{self.optimizer.param_groups[0]['lr']:g}); clips of that step: {', '.join(named[:_MAX_NAMED_CLIPS])}"
            f"{' ...' if len(named) > _MAX_NAMED_CLIPS else ''}. The last checkpoint is "
            f"{newest or 'none: the run had not come to one'}. Lower optimizer.lr or set optimizer.clip_grad_norm "
            "(under another --name); --compute.debug true searches the clips themselves"
        )

    def _video_ids(self, batches: list[NumpyBatch]) -> list[str]:
        return [self.stage.train_index.video_id_N[row] for batch in batches for row in batch["row_B"]]

    def _after_step(self, meter: Meter) -> None:
        epoch_before, epoch = self.order.epoch(self.step - 1), self.order.epoch(self.step)
        is_last, every = self.step == self.last_step, self.config.validate_every_epochs
        is_validated = is_last or epoch // every > epoch_before // every
        self._show(meter, is_due=is_last or epoch > epoch_before)
        if is_validated or self.step % self.config.log_every_steps == 0:
            self._log_training(meter)
        for _ in range(epoch - epoch_before):
            self.schedule.after_epoch()
        if is_validated:
            self.validations["final"] = self._validate()
            self.schedule.after_validation(self.validations["final"]["loss"])
        is_last = is_last or self.schedule.has_ended
        if is_last or self.step % self.config.checkpoint.every_steps == 0 or self._is_newly_preempted():
            self._checkpoint()

    def _is_newly_preempted(self) -> bool:
        was_preempted, self.was_preempted = self.was_preempted, self.worker.is_preempted()
        return self.was_preempted and not was_preempted

    def _show(self, meter: Meter, *, is_due: bool) -> None:
        if self.worker.rank or (not is_due and time.monotonic() < self.last_shown + _SHOWN_EVERY_SECONDS):
            return
        self.last_shown = time.monotonic()
        own = {name: float(meter.counts.get(name, 0.0)) for name in self.task.count_names}
        if own["num_examples"]:
            self.worker.show(self.step, self.task.metrics(own) | meter.speed(share=self.share))

    def _log_training(self, meter: Meter) -> None:
        counts = self._summed(meter.counts)
        metrics = {"data/unreadable_clips": counts.pop("num_unreadable")}
        if counts["num_frames"]:
            metrics["train/padded_share"] = counts.pop("num_padded_frames") / counts.pop("num_frames")
            metrics |= {f"train/{name}": value for name, value in self.task.metrics(counts).items()}
        metrics |= {"lr": meter.lr, "train/gradient_norm": meter.gradient_norm}
        metrics["epoch"] = self.step * self.order.global_batch_size / self.order.rows_an_epoch
        metrics |= meter.speed(share=self.share)
        metrics["cost/worker_hours"] = self._worker_seconds() / 3600
        meter.restart()
        self._log(metrics)

    def _worker_seconds(self) -> float:
        """What the run has cost up to here, lost work not counted, in seconds of all workers."""
        return self.worker_seconds_before + (time.monotonic() - self.began) * self.worker.world_size

    @torch.no_grad()
    def _validate(self) -> Metrics:
        """Run the network over this worker's validation batches and add the counts of all workers."""
        net = self._kept_net()
        if self.config.precise_bn_steps:
            self._measure_batch_norms(net)
        else:
            self.worker.share_buffers(net)
        net.eval()
        total: dict[str, float | torch.Tensor] = {}
        batches = self.stage.validation_batches(rank=self.worker.rank, world_size=self.worker.world_size)
        for batch in self._noted(batches):
            is_read_B = self._note_unreadable(batch, self.stage.val_index)
            add_counts(total, {"num_unreadable": float((~is_read_B).sum())})
            if not is_read_B.any():
                continue
            readable = {name: values[is_read_B] for name, values in batch.items()}
            with self.execution.autocast(self.worker.device):
                output = self.task(net, self._to_device(readable, is_training=False))
            add_counts(total, output.counts)
            add_counts(total, padding(readable))
        counts = self._summed(total)
        if not counts["num_examples"]:
            raise _StopError("no validation clip can be read: prepare the shards again")
        share_padded = counts.pop("num_padded_frames") / counts.pop("num_frames")
        extra = {"padded_share": share_padded, "unreadable_clips": counts.pop("num_unreadable")}
        metrics = {**self.task.metrics(counts), **extra}
        examined = self.stage.examine(net, task=self.task, worker=self.worker, execution=self.execution)
        named = {f"val/{name}": value for name, value in metrics.items()} | examined
        self._log(named)
        if self.worker.rank == 0:
            epoch = round(self.step * self.order.global_batch_size / self.order.rows_an_epoch)
            self.worker.validated(self.step, named | {"epoch": float(epoch)})
        return metrics | examined

    def _kept_net(self) -> nn.Module:
        """The network that is validated and kept: the average of the weights where there is one."""
        return self.task.net if self.average is None else self.average.module

    def _measure_batch_norms(self, net: nn.Module) -> None:
        steps = range(self.step, self.step + self.config.precise_bn_steps)

        def run_batches() -> None:
            batches = self._noted(self.stage.train_batches(steps=steps, places=self.places))
            for (step, place), batch in zip(itertools.product(steps, self.places), batches, strict=True):
                if (batch["reason_B"] == "").all():
                    self._seed(step, place)
                    with self.execution.autocast(self.worker.device):
                        self.task(net, self._to_device(batch, is_training=True))

        measure_batch_norms(net, run_batches, sum_over_workers=self.worker.sum_over_workers)

    def _noted(self, batches: Iterator[NumpyBatch]) -> Iterator[NumpyBatch]:
        for batch in batches:
            self.worker.note_progress()
            yield batch

    def _summed(self, counts: dict[str, float | torch.Tensor]) -> dict[str, float]:
        names = (*self.task.count_names, *PADDING_COUNTS, "num_unreadable")
        values = torch.tensor([float(counts.get(name, 0.0)) for name in names], dtype=torch.float64)
        values = values.to(self.worker.device)
        self.worker.sum_over_workers(values)
        return dict(zip(names, values.tolist(), strict=True))

    def _to_device(self, batch: NumpyBatch, *, is_training: bool) -> Batch:
        """Move a batch to the device; only there colours change, and floats are made of the clips."""
        numbers = {name: array for name, array in batch.items() if name != "reason_B"}
        tensors = {name: torch.from_numpy(array.copy()).to(self.worker.device) for name, array in numbers.items()}
        clip, clip_BTHWC = self.config.clip, tensors.pop("clip_BTHWC")
        if clip.num_segments > 1:
            clip_BTHWC = clip_BTHWC.flatten(0, 1)
        if is_training:
            clip_BTHWC = self.colors(clip_BTHWC)
        return tensors | {"clip_BCTHW": normalize_clip(clip_BTHWC, mean=clip.mean, std=clip.std)}

    def _log(self, metrics: Metrics) -> None:
        if self.worker.rank == 0:
            self.worker.log(metrics, self.step)

    def _checkpoint(self) -> None:
        failure = None
        if self.worker.rank == 0:
            try:
                self.worker.checkpoints.save(self.step, self._write_checkpoint)
            except OSError as error:
                newest = self.worker.checkpoints.newest()
                failure = (
                    f"the checkpoint of step {self.step} cannot be written to {self.worker.checkpoints.root}: {error}. "
                    f"The last one is {newest}: make room and start again with the same --name"
                )
        if (failure := self.worker.share(failure)) is not None:
            raise _StopError(failure)

    def _write_checkpoint(self, folder: Path) -> None:
        save_training_state(self._state(), folder)
        self.stage.save_weights(self._kept_net(), folder / self.stage.weights_name)

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "worker_seconds": self._worker_seconds(),
            "validations": self.validations,
            "net": self.task.net.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def _restore(self, folder: Path) -> None:
        state = load_training_state(folder)
        self.task.net.load_state_dict(state["net"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        own = {name: self.optimizer.defaults[name] for name in ("lr", "momentum", "nesterov", "weight_decay")}
        self.optimizer.load_state_dict(state["optimizer"])
        if self.worker.interval is not None:  # its settings, not those of the interval before
            for group in self.optimizer.param_groups:
                group.update(own)
        self.schedule.load_state_dict(state["schedule"])
        self.step, self.validations = state["step"], state["validations"]
        self.worker_seconds_before = state.get("worker_seconds", 0.0)  # older ones do not say


def _execution_of(config: RunConfig) -> Execution:
    return Execution(**config.compute.model_dump(exclude={"sync_batch_norm"}))


def _colors_of(config: RunConfig) -> ColorAugmentation:
    names = {"brightness", "contrast", "saturation", "hue", "gray_share"}
    return ColorAugmentation(**config.augmentation.model_dump(include=names))


def _build_optimizer(
    parameters: list[nn.Parameter], config: OptimizerConfig, *, batch_size: int
) -> torch.optim.Optimizer:
    return build_sgd(
        parameters,
        lr=linearly_scaled(config.lr, global_batch_size=batch_size, base_batch_size=config.base_batch_size),
        momentum=config.momentum,
        is_nesterov=config.nesterov,
        weight_decay=config.weight_decay,
    )


def _build_schedule(optimizer: torch.optim.Optimizer, config: RunConfig, *, steps_an_epoch: float) -> Schedule:
    schedule = config.schedule
    return Schedule(
        optimizer,
        schedule.kind,
        num_steps=round(steps_an_epoch * config.epochs),
        every_epochs=schedule.every_epochs,
        factor=schedule.factor,
        patience=schedule.patience,
        min_lr=schedule.min_lr,
        warmup_steps=round(schedule.warmup_epochs * steps_an_epoch),
    )
