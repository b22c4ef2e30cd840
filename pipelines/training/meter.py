"""Counts and times between two points of the log."""

import contextlib
import math
import time
from collections.abc import Iterator, Sequence

import torch

from pipelines.clips.batch import NumpyBatch
from pipelines.training.worker import Metrics, Worker

_PADDING_COUNTS = ("num_padded_frames", "num_frames")


class Meter:
    """Sums what one worker did since the last point of the log; fetches nothing from the device until it is asked.

    Attributes:
        counts: sums by name; scalars, or tensors on the training device.
        num_clips: clips (with segments: videos) trained on.
        lr: learning rate of the last step.
        gradient_norm: of the last step, before it was clipped.
        first_wait_seconds: time to the very first batch; None before it.
    """

    def __init__(self) -> None:
        self.first_wait_seconds: float | None = None
        self.restart()

    def restart(self) -> None:
        """Begin anew, after a point of the log."""
        self.counts: dict[str, float | torch.Tensor] = {}
        self.num_clips = 0
        self.lr, self.gradient_norm = 0.0, 0.0
        self._waiting_seconds, self._step_seconds = 0.0, 0.0

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Time one step, including the wait for data."""
        started = time.perf_counter()
        yield
        self._step_seconds += time.perf_counter() - started

    def next(self, batches: Iterator[NumpyBatch]) -> NumpyBatch:
        """Take the next batch, and time the wait for it."""
        asked = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - asked
        if self.first_wait_seconds is None:
            self.first_wait_seconds = waited
        self._waiting_seconds += waited
        return batch

    def add(self, counts: dict[str, torch.Tensor], batch: NumpyBatch) -> None:
        """Add the counts of one micro-batch."""
        add_counts(self.counts, counts)
        add_counts(self.counts, padding(batch))
        self.num_clips += len(batch["clip_BTHWC"])

    def speed(self, *, share: float) -> Metrics:
        """Clips a second over all workers, and the share of the time of steps in which this worker waited for data.

        Args:
            share: this worker's part of a global batch; the others work at the same pace.
        """
        return {
            "throughput/clips_per_second": self.num_clips / share / self._step_seconds,
            "throughput/data_wait_share": self._waiting_seconds / self._step_seconds,
        }


def padding(batch: NumpyBatch) -> dict[str, float]:
    """Made-up frames of a batch, and all its frames."""
    num_frames = math.prod(batch["clip_BTHWC"].shape[:-3])
    return {"num_padded_frames": float(batch["num_padded_B"].sum()), "num_frames": float(num_frames)}


def add_counts(total: dict[str, float | torch.Tensor], more: dict[str, torch.Tensor] | dict[str, float]) -> None:
    """Add to the sums by name, in place."""
    for name, value in more.items():
        total[name] = total.get(name, 0.0) + value


def sum_counts(total: dict[str, float | torch.Tensor], count_names: Sequence[str], worker: Worker) -> dict[str, float]:
    """Add the sums of all workers: those of the task, of padding, and `num_unreadable`."""
    names = (*count_names, *_PADDING_COUNTS, "num_unreadable")
    values = torch.tensor([float(total.get(name, 0.0)) for name in names], dtype=torch.float64).to(worker.device)
    worker.sum_over_workers(values)
    return dict(zip(names, values.tolist(), strict=True))
