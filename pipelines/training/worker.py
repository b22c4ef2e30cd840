"""The surroundings of one training worker: what Ray Train, or a plain process, gives to the loop."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from pipelines.clips.batch import NumpyBatch, unreadable
from pipelines.training.checkpoints import CheckpointFolder

Metrics = dict[str, float]


def keep(value: Any) -> Any:
    """Return the value: a single worker has no others to add or to share with."""
    return value


def ignore(*_: object) -> None:
    """Do nothing: the listener of a worker without listeners."""


class Interval(NamedTuple):
    """A part of a run, after which it pauses; population based training changes settings between such parts.

    Attributes:
        until_epoch: epochs of the run after which it pauses or ends.
        settings: dotted name -> value, for this part.
    """

    until_epoch: int
    settings: Mapping[str, Any]


@dataclass
class Worker:
    """The surroundings of one worker; the defaults are those of a single worker.

    Attributes:
        checkpoints: where worker 0 writes.
        checkpoint: folder of the checkpoint to resume from, the same on every worker.
        device: where the network lives.
        rank: 0-based; worker 0 writes.
        world_size: number of workers.
        wrap: makes the network data-parallel.
        sum_over_workers: adds a tensor over all workers, in place.
        share_buffers: gives all workers the first one's buffers (running statistics), in place.
        share: gives all workers the first one's value.
        gather: gives all workers the values of all.
        is_preempted: whether a node is about to be taken away, the same on every worker.
        note_progress: called after every batch, to show that this worker does not hang.
        note_unreadable: takes the video id and the reason of a clip that could not be read.
        log: takes metrics and the step; called on worker 0.
        show: takes the step, metrics and clips a second for people to see; called on worker 0.
        validated: takes the step and the metrics of a validation; called on worker 0.
        interval: the part of the run to train; by default all of it.
    """

    checkpoints: CheckpointFolder
    checkpoint: Path | None
    device: torch.device
    rank: int = 0
    world_size: int = 1
    wrap: Callable[[nn.Module], nn.Module] = keep
    sum_over_workers: Callable[[torch.Tensor], object] = keep
    share_buffers: Callable[[nn.Module], object] = keep
    share: Callable[[Any], Any] = keep
    gather: Callable[[list[Any]], list[Any]] = keep
    is_preempted: Callable[[], bool] = bool
    note_progress: Callable[[], None] = ignore
    note_unreadable: Callable[[str, str], None] = ignore
    log: Callable[[Metrics, int], None] = ignore
    show: Callable[[int, Metrics], None] = ignore
    validated: Callable[[int, Metrics], None] = ignore
    interval: Interval | None = None

    def noted(self, batches: Iterator[NumpyBatch]) -> Iterator[NumpyBatch]:
        """The same batches; each counts as progress."""
        for batch in batches:
            self.note_progress()
            yield batch

    def note_unreadable_clips(self, batch: NumpyBatch, video_id_N: np.ndarray) -> None:
        """Note the clips of a batch that could not be read; `video_id_N`: of the rows of the batch's index."""
        for row, reason in unreadable(batch):
            self.note_unreadable(video_id_N[row], reason)
