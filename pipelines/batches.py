"""Shards become the decoded, cropped uint8 batches of one worker, in an order that is ours (Ray Data does the work).

The order of a run is one endless sequence of rows, epoch after epoch, each epoch a permutation that follows from
(seed, epoch) alone. Step s takes its next `global_batch_size` rows, worker r of W the r-th part of them:

    epoch 0          | epoch 1          |
    4 1 0 3 2 5 6    | 0 6 3 5 1 2 4    | ...
    [step 0][step 1] [step 2] ...             nothing dropped between epochs, for any number of workers

So a run can go on at any step, with any number of workers, and sees the clips it would have seen. Only what does not
fill the last step of the last epoch is left out. A worker's part goes through its network in micro-batches (batch
statistics and negative pairs are made within one):

    micro_batch_size 2, 1 worker      [..][..][..]           2 workers   [..][..] | [..]
    micro_batch_size none             [......]                           [...]    | [...]

Legend: B clips of a batch, T frames, H x W pixels, C channels; N rows of the index.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import ray

from pipelines.clip_loader import BatchLoader, NumpyBatch

ItemT = TypeVar("ItemT")

# Clips that one task decodes: seconds of work, and a block of some tens of megabytes.
_CLIPS_A_TASK = 8
# Steps that one Ray Data execution covers: the driver's list of tasks stays short, and its start-up is spread out.
_STEPS_PER_EXECUTION = 1000


@dataclass(frozen=True)
class TrainOrder:
    """Which rows each step of a run sees."""

    num_rows: int
    global_batch_size: int
    seed: int

    def num_steps(self, epochs: int) -> int:
        """Steps of `epochs` passes; at least one."""
        return max(1, epochs * self.num_rows // self.global_batch_size)

    def epoch(self, step: int) -> int:
        """The epoch to which the first clip of `step` belongs."""
        return step * self.global_batch_size // self.num_rows

    def rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Give the rows of `step` and the epoch of each: two (global_batch_size,) int64 arrays."""
        position = np.arange(step * self.global_batch_size, (step + 1) * self.global_batch_size)
        epoch, place = np.divmod(position, self.num_rows)
        orders = {
            int(e): np.random.default_rng([self.seed, int(e)]).permutation(self.num_rows) for e in np.unique(epoch)
        }
        return np.array([orders[int(e)][p] for e, p in zip(epoch, place, strict=True)], np.int64), epoch


def micro_batches(global_batch_size: int, *, size: int | None, rank: int, world_size: int) -> list[range]:
    """Give the places in the global batch that each micro-batch of this worker takes.

    Args:
        global_batch_size: clips a step over all workers.
        size: clips of a micro-batch, of which whole ones make the global batch; none: a worker's part is one.
        rank: 0-based number of this worker.
        world_size: number of workers, at most that of micro-batches (without a size: of clips).
    """
    num_parts = global_batch_size // size if size else global_batch_size
    first, last = (rank * num_parts // world_size, (rank + 1) * num_parts // world_size)
    assert first < last, "checked by the config"
    if size is None:
        return [range(first, last)]
    return [range(number * size, (number + 1) * size) for number in range(first, last)]


def train_batches(
    loader: BatchLoader, order: TrainOrder, *, steps: range, places: Sequence[range]
) -> Iterator[NumpyBatch]:
    """Yield the micro-batches of every step that this worker has, decoded ahead by Ray Data on whatever CPUs are free.

    Args:
        loader: decodes the clips.
        order: which rows each step sees.
        steps: the steps.
        places: of this worker's micro-batches, as `micro_batches` gives them.
    """

    def load(piece: tuple[int, range]) -> NumpyBatch:
        step, part = piece
        rows, epochs = order.rows(step)
        mine = slice(part.start, part.stop)
        seeds = [[order.seed, int(epoch), int(row)] for row, epoch in zip(rows[mine], epochs[mine], strict=True)]
        return loader.random_batch(rows[mine], seeds)

    for first in range(steps.start, steps.stop, _STEPS_PER_EXECUTION):
        some = range(first, min(first + _STEPS_PER_EXECUTION, steps.stop))
        loaded = stream(load, [(step, part) for step in some for place in places for part in _pieces(place)])
        for _ in some:
            for place in places:
                yield _joined([next(loaded) for _ in _pieces(place)])


def _pieces(place: range) -> list[range]:
    """Cut the places of a micro-batch into what one task decodes."""
    return [place[first : first + _CLIPS_A_TASK] for first in range(0, len(place), _CLIPS_A_TASK)]


def _joined(pieces: Sequence[NumpyBatch]) -> NumpyBatch:
    if len(pieces) == 1:
        return pieces[0]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def stream(load: Callable[[ItemT], NumpyBatch], items: Sequence[ItemT]) -> Iterator[NumpyBatch]:
    """Run `load` on every item as a Ray Data task and yield the results in the order of the items."""
    if len(items) == 0:
        return

    def load_one(block: NumpyBatch) -> NumpyBatch:
        return load(items[int(block["id"][0])])

    dataset = ray.data.range(len(items), override_num_blocks=len(items)).map_batches(load_one, batch_size=1)
    dataset.context.execution_options.preserve_order = True
    dataset.context.enable_progress_bars = False
    # A batch is one block, however large: never cut in two.
    dataset.context.target_max_block_size = None
    yield from dataset.iter_batches(batch_size=None, prefetch_batches=1)
