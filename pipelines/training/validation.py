"""The network of a run is measured on the validation rows; all workers add their counts, which become metrics."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from pipelines.clips.batch import is_read, readable
from pipelines.training.forward import Forward
from pipelines.training.meter import add_counts, padding, sum_counts
from pipelines.training.stage import Stage
from pipelines.training.step_guard import StopError
from pipelines.training.worker import Metrics, Worker
from t3d_core.models.execution import Execution
from t3d_core.training.averaging import measure_batch_norms
from t3d_core.training.tasks import Task


class Validated(NamedTuple):
    """What one validation found.

    Attributes:
        own: metrics of the task, such as `loss`, by their plain names.
        examined: metrics of `Stage.examine`, by the names that MLflow gets.
    """

    own: Metrics
    examined: Metrics

    def plain(self) -> Metrics:
        """All of them, as summaries and schedules take them."""
        return self.own | self.examined

    def logged(self) -> Metrics:
        """All of them, as MLflow gets them."""
        return {f"val/{name}": value for name, value in self.own.items()} | self.examined


class Validator:
    """Measures networks of one run on this worker; every worker takes part and gets the same metrics."""

    def __init__(self, stage: Stage, worker: Worker, task: Task, *, forward: Forward, execution: Execution) -> None:
        self._stage, self._worker, self._task = stage, worker, task
        self._forward, self._execution = forward, execution

    @torch.no_grad()
    def validate(self, net: nn.Module) -> Validated:
        """Run the network over this worker's validation batches and add the counts of all workers.

        Raises:
            StopError: no validation clip can be read.
        """
        net.eval()
        total: dict[str, float | torch.Tensor] = {}
        batches = self._stage.validation_batches(rank=self._worker.rank, world_size=self._worker.world_size)
        for batch in self._worker.noted(batches):
            is_read_B = is_read(batch)
            self._worker.note_unreadable_clips(batch, self._stage.val_index.video_id_N)
            add_counts(total, {"num_unreadable": float((~is_read_B).sum())})
            if not is_read_B.any():
                continue
            kept = readable(batch)
            add_counts(total, self._forward.validation(net, kept).counts)
            add_counts(total, padding(kept))
        counts = sum_counts(total, self._task.count_names, self._worker)
        if not counts["num_examples"]:
            raise StopError("no validation clip can be read: prepare the shards again")
        share_padded = counts.pop("num_padded_frames") / counts.pop("num_frames")
        extra = {"padded_share": share_padded, "unreadable_clips": counts.pop("num_unreadable")}
        examined = self._stage.examine(net, task=self._task, worker=self._worker, execution=self._execution)
        return Validated({**self._task.metrics(counts), **extra}, examined)

    @torch.no_grad()
    def measure_batch_norms(self, net: nn.Module, *, steps: range, places: Sequence[range]) -> None:
        """Let batch norms take their statistics anew over the training clips of `steps`.

        Args:
            net: the network that is validated then.
            steps: of the run.
            places: this worker's micro-batches of a step.
        """

        def run_batches() -> None:
            batches = self._worker.noted(self._stage.train_batches(steps=steps, places=places))
            for (step, place), batch in zip(itertools.product(steps, places), batches, strict=True):
                if is_read(batch).all():
                    self._forward.training(net, batch, step=step, place=place)

        measure_batch_norms(net, run_batches, sum_over_workers=self._worker.sum_over_workers)
