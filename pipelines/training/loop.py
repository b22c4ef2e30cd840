"""Batches become a trained network: one loop for every task, on one worker of several. It knows nothing of Ray.

A step is one global batch. Its micro-batches are dealt to the workers and add up their gradients, each weighted by its
share of the global batch. The step is the same for any number of workers, except batch statistics and pairs (see
`clips.order`).
"""

import contextlib
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipelines.clips.batch import NumpyBatch, is_read, readable
from pipelines.clips.order import micro_batches
from pipelines.training.build import build_colors, build_execution, build_optimizer, build_schedule
from pipelines.training.forward import Forward
from pipelines.training.meter import Meter, add_counts, sum_counts
from pipelines.training.stage import Stage
from pipelines.training.state import Learner, Position
from pipelines.training.step_guard import MicroBatchLoss, StepGuard, StopError
from pipelines.training.validation import Validator
from pipelines.training.worker import Metrics, Worker
from t3d_core.models.execution import Execution
from t3d_core.training.averaging import WeightAverage

_SHOWN_EVERY_SECONDS = 1.0


class TrainingOutcome(NamedTuple):
    """How a run ended, the same on every worker.

    Attributes:
        validations: `initial` and `final` metrics.
        refusal: why it stopped early, when a restart would not help; None if it reached its end.
    """

    validations: dict[str, Metrics]
    refusal: str | None = None


def run_training_loop(stage: Stage, worker: Worker) -> TrainingOutcome:
    """Train from the start, or from the worker's checkpoint, to the end."""
    training = _Training(stage, worker)
    try:
        training.run()
    except StopError as stop:
        return TrainingOutcome(training.validations, str(stop))
    return TrainingOutcome(training.validations)


class _Training:
    """One run on one worker."""

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
        self._build_network()
        self.step = 0
        self.validations: dict[str, Metrics] = {}
        self.was_preempted = False
        self.last_shown = -math.inf
        self.began, self.worker_seconds_before = time.monotonic(), 0.0
        if worker.checkpoint is not None:
            position = self.learner.restore(worker.checkpoint, keeps_settings=worker.interval is not None)
            self.step, self.worker_seconds_before, self.validations = position
        self.stage.set_trained(self.task.net, step=self.step)
        self.net = self.worker.wrap(self.task.net)

    def _build_network(self) -> None:
        """Make the network, what runs it, and what changes it, in the order in which random numbers are drawn."""
        config, worker = self.config, self.worker
        self.task = self.stage.build_task()
        self.task.to(worker.device)
        if config.compute.sync_batch_norm:
            self.task.net = nn.SyncBatchNorm.convert_sync_batchnorm(self.task.net)
        execution = build_execution(config)
        self._prepare(execution)
        self.parameters = [parameter for parameter in self.task.net.parameters() if parameter.requires_grad]
        average = WeightAverage(self.task.net, decay=config.ema_decay) if config.ema_decay else None
        optimizer = build_optimizer(self.task.net, config.optimizer, batch_size=config.global_batch_size)
        schedule = build_schedule(optimizer, config, steps_an_epoch=self.num_steps / config.epochs)
        self.learner = Learner(self.task.net, average, optimizer, schedule)
        self.forward = Forward(
            self.task,
            execution=execution,
            clip=config.clip,
            colors=build_colors(config),
            seed=config.seed,
            global_batch_size=config.global_batch_size,
            device=worker.device,
        )
        self.validator = Validator(self.stage, worker, self.task, forward=self.forward, execution=execution)
        self.guard = StepGuard(self.stage, worker)

    def _prepare(self, execution: Execution) -> None:
        """Set up the network for this device, and check its numbers there."""
        clip, largest = self.config.clip, max(map(len, self.places))
        measured = execution.prepare(
            self.task.net,
            num_frames=clip.num_frames,
            size=clip.crop_size,
            batch_size=largest * clip.num_segments,
            is_trained=True,
        )
        if self.worker.rank == 0:
            for each in measured:
                print(each, flush=True)

    def run(self) -> None:
        if "initial" not in self.validations:
            self.validations["initial"] = self._validate()
        meter, first_step = Meter(), self.step
        self._log_new_settings()
        batches = self.stage.train_batches(steps=range(self.step, self.last_step), places=self.places)
        batches = self.worker.noted(batches)
        while self.step < self.last_step and not self.learner.schedule.has_ended:
            if self.stage.set_trained(self.task.net, step=self.step):
                self.net = self.worker.wrap(self.task.net)  # data-parallel networks know who gets a gradient
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

    # ---- one step

    def _train_step(self, batches: Iterator[NumpyBatch], meter: Meter) -> None:
        optimizer = self.learner.optimizer
        optimizer.zero_grad(set_to_none=True)
        losses: list[MicroBatchLoss] = []
        for place in self.places:
            batch, weight = self._readable(meter.next(batches), meter)
            with self._synchronised(place is self.places[-1]):
                losses.append(MicroBatchLoss(self._backward(batch, weight, place, meter), batch))
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        meter.gradient_norm, meter.lr = norm.item(), self.learner.schedule.lr
        self.guard.check(losses, gradient_norm=meter.gradient_norm, step=self.step, lr=meter.lr)
        if self.config.optimizer.clip_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.config.optimizer.clip_grad_norm, norm)
        optimizer.step()
        if self.learner.average is not None:
            self.learner.average.update(self.task.net)
        self.step += 1
        if self.step < self.num_steps:
            self.learner.schedule.after_step()

    def _backward(self, batch: NumpyBatch, weight: float, place: range, meter: Meter) -> torch.Tensor:
        # Blank clips stay out of the running statistics (but SyncBatchNorm waits for every worker).
        self.task.net.train(weight > 0 or self.config.compute.sync_batch_norm)
        output = self.forward.training(self.net, batch, step=self.step, place=place)
        # DDP takes the mean over workers; the step needs the sum of their shares.
        (output.loss * (weight * self.worker.world_size)).backward()
        if weight > 0:
            meter.add(output.counts, batch)
        return output.loss.detach()

    def _synchronised(self, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """Let workers exchange gradients once a step, with the last micro-batch."""
        if is_last or not isinstance(self.net, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.net.no_sync()

    def _readable(self, batch: NumpyBatch, meter: Meter) -> tuple[NumpyBatch, float]:
        """Drop the clips that could not be read; give the rest and their share of the global batch."""
        is_read_B = is_read(batch)
        self.worker.note_unreadable_clips(batch, self.stage.train_index.video_id_N)
        add_counts(meter.counts, {"num_unreadable": float((~is_read_B).sum())})
        if is_read_B.sum() < min(2, len(is_read_B)):  # too few for batch norm: the step continues without them
            return batch, 0.0
        return readable(batch), int(is_read_B.sum()) / self.config.global_batch_size

    # ---- between steps

    def _after_step(self, meter: Meter) -> None:
        epoch_before, epoch = self.order.epoch(self.step - 1), self.order.epoch(self.step)
        is_last, every = self.step == self.last_step, self.config.validate_every_epochs
        is_validated = is_last or epoch // every > epoch_before // every
        self._show(meter, is_due=is_last or epoch > epoch_before)
        if is_validated or self.step % self.config.log_every_steps == 0:
            self._log_training(meter)
        schedule = self.learner.schedule
        for _ in range(epoch - epoch_before):
            schedule.after_epoch()
        if is_validated:
            self.validations["final"] = self._validate()
            schedule.after_validation(self.validations["final"]["loss"])
        is_last = is_last or schedule.has_ended
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
        counts = sum_counts(meter.counts, self.task.count_names, self.worker)
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
        """Seconds of all workers that the run has taken so far, without lost work."""
        return self.worker_seconds_before + (time.monotonic() - self.began) * self.worker.world_size

    def _validate(self) -> Metrics:
        net = self._kept_net()
        self._refresh_statistics(net)
        found = self.validator.validate(net)
        self._log(found.logged())
        if self.worker.rank == 0:
            epoch = round(self.step * self.order.global_batch_size / self.order.rows_an_epoch)
            self.worker.validated(self.step, found.logged() | {"epoch": float(epoch)})
        return found.plain()

    def _refresh_statistics(self, net: nn.Module) -> None:
        """Give the batch norms of the network that is validated those of all workers.

        A frozen backbone is normalised by them in training too: it gets them once, at the start, and keeps them.
        """
        if not self.config.precise_bn_steps:
            self.worker.share_buffers(net)
            return
        is_frozen = self.stage.is_frozen(self.task.net)
        if is_frozen and self.step > 0:
            return
        steps = range(self.step, self.step + self.config.precise_bn_steps)
        for each in dict.fromkeys((net, self.task.net) if is_frozen else (net,)):
            self.validator.measure_batch_norms(each, steps=steps, places=self.places)

    def _kept_net(self) -> nn.Module:
        """The network that is validated and kept: the average of the weights where there is one."""
        return self.task.net if self.learner.average is None else self.learner.average.module

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
                    f"The last whole one is {newest}: make room, then start again with the same --name"
                )
        if (failure := self.worker.share(failure)) is not None:
            raise StopError(failure)

    def _write_checkpoint(self, folder: Path) -> None:
        self.learner.save(folder, Position(self.step, self._worker_seconds(), self.validations))
        self.stage.save_weights(self._kept_net(), folder / self.stage.weights_name)
