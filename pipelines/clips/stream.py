"""Shards become the decoded, cropped uint8 batches of one worker, in an order that is ours (Ray Data does the work).

The order of a run is one endless sequence of rows, pass after pass, each pass a permutation that follows from (seed,
pass) alone. Step s takes its next `global_batch_size` rows, worker r of W the r-th part of them:

    pass 0           | pass 1           |
    4 1 0 3 2 5 6    | 0 6 3 5 1 2 4    | ...
    [step 0][step 1] [step 2] ...             nothing dropped between passes, for any number of workers

An epoch, by which schedules and validations count, is a pass or a stated part of one: of half a million clips, say, a
tenth. So a run can go on at any step, with any number of workers, and sees the clips it would have seen. Only what does
not fill the last step of the last epoch is left out. A worker's part goes through its network in micro-batches (batch
statistics and negative pairs are made within one):

    micro_batch_size 2, 1 worker      [..][..][..]           2 workers   [..][..] | [..]
    micro_batch_size none             [......]                           [...]    | [...]

Legend: B clips of a batch, T frames, H x W pixels, C channels; N rows of the index.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import ray

from pipelines.clips.loader import BatchLoader, NumpyBatch
from pipelines.runtime import pools

ItemT = TypeVar("ItemT")

# Clips that are decoded and handed over together: the first batch waits for no more, and a block is some tens of MB. A
# micro-batch of more is copied together by the process that trains.
CLIPS_A_PIECE = 16
# What one task decodes at most, piece after piece: seconds of work. Ray Data looks ten times a second what has ended,
# and a CPU stands still for about 0.2 s from one task to the next.
_TASK_CLIPS = 512
# Tasks run to their end, read or not: those of all CPUs together make at most this part of the object store.
_TASKS_SHARE_OF_STORE = 0.25
# Tasks a CPU at least, however little work there is: all CPUs take part.
_TASKS_A_CPU = 4
# Steps that one Ray Data execution covers: the driver's list of tasks stays short, and its start-up is spread out.
_STEPS_PER_EXECUTION = 1000


@dataclass(frozen=True)
class SourceLimit:
    """At most so many rows of a source video come in a pass; which ones is drawn anew in each.

    Attributes:
        source_N: source of each row.
        most: rows of one source a pass.
    """

    source_N: np.ndarray
    most: int

    @property
    def num_rows(self) -> int:
        """Rows of a pass."""
        return int(np.minimum(np.unique(self.source_N, return_counts=True)[1], self.most).sum())

    def first_of(self, order_N: np.ndarray) -> np.ndarray:
        """Take the first rows of every source in this order of all rows."""
        source_N = self.source_N[order_N]
        by_source_N = np.argsort(source_N, kind="stable")
        starts = np.flatnonzero(np.diff(source_N[by_source_N], prepend=source_N[by_source_N[0]] - 1))
        place_N = np.empty(len(order_N), np.int64)
        counts = np.diff(starts, append=len(order_N))
        place_N[by_source_N] = np.arange(len(order_N)) - np.repeat(starts, counts)
        return order_N[place_N < self.most]


@dataclass(frozen=True, eq=False)
class TrainOrder:
    """Which rows each step of a run sees.

    Attributes:
        num_rows: rows that there are.
        global_batch_size: rows of a step.
        seed: of the order of each pass.
        epoch_share: part of a pass that counts as an epoch, in (0, 1]: one pass is then several epochs.
        limit: rows of a source that a pass leaves out; none: it takes all rows.
    """

    num_rows: int
    global_batch_size: int
    seed: int
    epoch_share: float = 1.0
    limit: SourceLimit | None = None

    @functools.cached_property
    def rows_a_pass(self) -> int:
        """Rows after which one may come again."""
        return self.num_rows if self.limit is None else self.limit.num_rows

    @property
    def rows_an_epoch(self) -> int:
        """Rows after which the next epoch begins."""
        return max(1, round(self.epoch_share * self.rows_a_pass))

    def num_steps(self, epochs: int) -> int:
        """Steps of `epochs` epochs; at least one."""
        return max(1, epochs * self.rows_an_epoch // self.global_batch_size)

    def steps_before(self, epoch: int) -> int:
        """Steps whose first clip belongs to an earlier epoch."""
        return -(-epoch * self.rows_an_epoch // self.global_batch_size)

    def epoch(self, step: int) -> int:
        """The epoch to which the first clip of `step` belongs."""
        return step * self.global_batch_size // self.rows_an_epoch

    def rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Give the rows of `step` and in which pass each comes: two (global_batch_size,) int64 arrays."""
        position = np.arange(step * self.global_batch_size, (step + 1) * self.global_batch_size)
        pass_B, place_B = np.divmod(position, self.rows_a_pass)
        orders = {int(number): _order_of_pass(self, int(number)) for number in np.unique(pass_B)}
        rows = [orders[int(number)][place] for number, place in zip(pass_B, place_B, strict=True)]
        return np.array(rows, np.int64), pass_B


@functools.lru_cache(maxsize=4)  # of millions of rows it takes longer to draw than the step to decode
def _order_of_pass(order: TrainOrder, number: int) -> np.ndarray:
    order_N = np.random.default_rng([order.seed, number]).permutation(order.num_rows)
    return order_N if order.limit is None else order.limit.first_of(order_N)


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
        return load_places(loader, order, *piece)

    largest = max(len(piece) for place in places for piece in _pieces(place))
    items_a_task = batches_a_task(num_clips=largest, bytes_a_clip=loader.bytes_a_clip)
    for first in range(steps.start, steps.stop, _STEPS_PER_EXECUTION):
        some = range(first, min(first + _STEPS_PER_EXECUTION, steps.stop))
        pieces = [(step, part) for step in some for place in places for part in _pieces(place)]
        loaded = stream(load, pieces, items_a_task=items_a_task)
        for _ in some:
            for place in places:
                yield _joined([next(loaded) for _ in _pieces(place)])


def load_places(loader: BatchLoader, order: TrainOrder, step: int, place: range) -> NumpyBatch:
    """Load the clips that stand at these places of a step's global batch."""
    rows, passes = order.rows(step)
    mine = slice(place.start, place.stop)
    seeds = [[order.seed, int(number), int(row)] for row, number in zip(rows[mine], passes[mine], strict=True)]
    return loader.random_batch(rows[mine], seeds)


def _pieces(place: range) -> list[range]:
    """Cut the places of a micro-batch."""
    return [place[first : first + CLIPS_A_PIECE] for first in range(0, len(place), CLIPS_A_PIECE)]


def _joined(pieces: Sequence[NumpyBatch]) -> NumpyBatch:
    if len(pieces) == 1:
        return pieces[0]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def stream(load: Callable[[ItemT], NumpyBatch], items: Sequence[ItemT], *, items_a_task: int) -> Iterator[NumpyBatch]:
    """Run `load` on every item in Ray Data's tasks and yield the results in the order of the items."""
    if len(items):
        yield from unpacked(dataset_of(load, items, items_a_task=items_a_task))


def dataset_of(load: Callable[[ItemT], NumpyBatch], items: Sequence[ItemT], *, items_a_task: int) -> ray.data.Dataset:
    """Make a data set of one row an item, in their order: the item's batch (see `as_row`), in a block of its own.

    Args:
        load: makes an item's batch.
        items: what to load, at least one.
        items_a_task: how many a task takes at most; it hands each over as soon as it is made.
    """

    def load_some(block: NumpyBatch) -> Iterator[NumpyBatch]:
        for place in block["id"]:
            yield as_row(load(items[int(place)]))

    num_cpus = max(1, round(pools.cpus("decode")))
    # As many for every CPU: none works alone at the end.
    tasks_a_cpu = max(_TASKS_A_CPU, math.ceil(len(items) / items_a_task / num_cpus))
    dataset = ray.data.range(len(items), override_num_blocks=min(len(items), tasks_a_cpu * num_cpus))
    dataset = dataset.map_batches(load_some, batch_size=None)
    dataset.context.execution_options.preserve_order = True
    dataset.context.execution_options.label_selector = pools.selector("decode")
    dataset.context.enable_progress_bars = False
    dataset.context.target_max_block_size = 1  # bytes: every row becomes a block at once
    # By default a task whose results nobody takes stands still and keeps its CPU: training would wait for a validation,
    # and that for a CPU, for ever.
    dataset.context._max_num_blocks_in_streaming_gen_buffer = None  # type: ignore[assignment]
    return dataset


def unpacked(dataset: ray.data.Dataset) -> Iterator[NumpyBatch]:
    """Yield the batches that the rows of a data set are."""
    return map(from_row, dataset.iter_batches(batch_size=None, prefetch_batches=1))


def batches_a_task(*, num_clips: int, bytes_a_clip: int) -> int:
    """How many batches of so many clips one task decodes."""
    a_cpu = pools.object_store_bytes("decode") / max(1.0, pools.cpus("decode"))  # none before the first node is there
    of_store = int(_TASKS_SHARE_OF_STORE * a_cpu)
    return max(1, min(_TASK_CLIPS // num_clips, of_store // (num_clips * bytes_a_clip)))


def as_row(batch: NumpyBatch) -> NumpyBatch:
    """A batch as a single row, which Ray Data cannot cut: columns of one array each, or of one list of strings."""
    row = {name: array[None] for name, array in batch.items() if array.dtype.kind != "U"}
    for name in batch.keys() - row.keys():
        row[name] = np.empty(1, object)
        row[name][0] = batch[name].tolist()
    return row


def from_row(row: NumpyBatch) -> NumpyBatch:
    """The batch that `as_row` was given."""
    return {name: array[0] if array.dtype != object else np.array(list(array[0]), str) for name, array in row.items()}
