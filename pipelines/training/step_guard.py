"""A run stops at a step that went wrong: a loss that is not finite, or storage that is gone."""

import math
from typing import NamedTuple

import torch

from pipelines.clips.batch import NumpyBatch, is_read
from pipelines.training.stage import Stage
from pipelines.training.worker import Worker

# A run stops after so many steps in a row without a readable clip, because its storage has gone.
_MAX_UNREAD_STEPS = 10
# Most clips that an error names.
_MAX_NAMED_CLIPS = 64


class StopError(Exception):
    """The run cannot continue; raised by all workers at the same step."""


class MicroBatchLoss(NamedTuple):
    """The loss of one micro-batch, a scalar on the training device, and the batch."""

    loss: torch.Tensor
    batch: NumpyBatch


class StepGuard:
    """Checks every step of one worker before its weights change."""

    def __init__(self, stage: Stage, worker: Worker) -> None:
        self._stage, self._worker = stage, worker
        self._num_unread_steps = 0

    def check(self, losses: list[MicroBatchLoss], *, gradient_norm: float, step: int, lr: float) -> None:
        """Check that the gradient is finite, and that clips still come.

        Args:
            losses: of this worker's micro-batches.
            gradient_norm: L2, over all parameters; the same on all workers.
            step: 0-based.
            lr: learning rate of the step.

        Raises:
            StopError: the gradient is not finite, or no clip could be read for many steps.
        """
        if not math.isfinite(gradient_norm):
            raise StopError(self._describe_not_finite(losses, step=step, lr=lr))
        self._check_that_clips_come([each.batch for each in losses], gradient_norm=gradient_norm, step=step)

    def _check_that_clips_come(self, batches: list[NumpyBatch], *, gradient_norm: float, step: int) -> None:
        """Stop a run whose storage has gone, before its schedule runs out; a step without clips has no gradient."""
        num_read = torch.tensor(float(sum(is_read(batch).sum() for batch in batches)))
        if gradient_norm == 0.0:  # the same on all workers: only then do they ask each other
            num_read = num_read.to(self._worker.device)
            self._worker.sum_over_workers(num_read)
        self._num_unread_steps = 0 if num_read > 0 or gradient_norm > 0 else self._num_unread_steps + 1
        if self._num_unread_steps == _MAX_UNREAD_STEPS:
            raise StopError(
                f"no clip of {_MAX_UNREAD_STEPS} steps in a row, up to step {step + 1}, can be read (first reason: "
                f"{batches[0]['reason_B'][0]}). The last checkpoint is {self._last_checkpoint()}. Make the folders of "
                "data.shards readable, then start again with the same --name"
            )

    def _describe_not_finite(self, losses: list[MicroBatchLoss], *, step: int, lr: float) -> str:
        """Name the clips of the micro-batches whose loss is not finite, or all clips when every loss is finite."""
        wrong = [each.batch for each in losses if not torch.isfinite(each.loss)]
        named = self._worker.gather(self._video_ids(wrong))
        what = "loss" if named else "gradient"
        if not named:
            named = self._worker.gather(self._video_ids([each.batch for each in losses]))
        return (
            f"the {what} is not finite at step {step + 1} (epoch {self._stage.order.epoch(step) + 1}, learning rate "
            f"{lr:g}); clips of that step: {', '.join(named[:_MAX_NAMED_CLIPS])}"
            f"{' ...' if len(named) > _MAX_NAMED_CLIPS else ''}. The last checkpoint is {self._last_checkpoint()}. "
            "Lower optimizer.lr or set optimizer.clip_grad_norm, with another --name. --compute.debug true checks the "
            "clips themselves"
        )

    def _last_checkpoint(self) -> str:
        newest = self._worker.checkpoints.newest()
        return "none, because the run stopped before its first" if newest is None else str(newest)

    def _video_ids(self, batches: list[NumpyBatch]) -> list[str]:
        return [self._stage.train_index.video_id_N[row] for batch in batches for row in batch["row_B"]]
