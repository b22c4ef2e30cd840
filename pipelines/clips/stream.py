"""Shards become the decoded, cropped uint8 batches of one worker, in the order of `clips.order`, by Ray Data.

Legend: B clips of a batch, T frames, H x W pixels, C channels; N rows of the index.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import ray

from pipelines.clips.batch import NumpyBatch
from pipelines.clips.loader import BatchLoader
from pipelines.clips.order import TrainOrder
from pipelines.runtime import pools
from pipelines.runtime.ray_logging import quiet_start_of_actors

ItemT = TypeVar("ItemT")

# Clips that are decoded and delivered together: the first batch waits for no more, and a block has some tens of MB. The
# training process joins the pieces of a larger micro-batch.
CLIPS_A_PIECE = 16
# Most clips that one task decodes, piece after piece: seconds of work. Ray Data checks ten times a second which tasks
# have ended, and a CPU is idle for about 0.2 s between two tasks.
_TASK_CLIPS = 512
# Tasks run to their end even if nobody reads them: those of all CPUs fill at most this share of the object store.
_TASKS_SHARE_OF_STORE = 0.25
# Fewest tasks for each CPU, so that all CPUs take part however little work there is.
_TASKS_A_CPU = 4
# Steps of one Ray Data execution, so that the driver's list of tasks stays short and its start-up is spread out.
_STEPS_PER_EXECUTION = 1000


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
    """Load the clips at these places of a step's global batch."""
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
    """Make a data set with one row for each item, in order: the item's batch (see `as_row`), in a block of its own.

    Args:
        load: makes an item's batch.
        items: what to load, at least one.
        items_a_task: most items of one task, which delivers each as soon as it is made.
    """

    def load_some(block: NumpyBatch) -> Iterator[NumpyBatch]:
        for place in block["id"]:
            yield as_row(load(items[int(place)]))

    num_cpus = max(1, round(pools.cpus("decode")))
    # The same number for every CPU, so that none works alone at the end.
    tasks_a_cpu = max(_TASKS_A_CPU, math.ceil(len(items) / items_a_task / num_cpus))
    dataset = ray.data.range(len(items), override_num_blocks=min(len(items), tasks_a_cpu * num_cpus))
    dataset = _in_decode_pool(dataset.map_batches(load_some, batch_size=None))
    dataset.context.execution_options.preserve_order = True
    # By default a task whose results are not read stops and keeps its CPU: training would wait for a validation, and
    # the validation for a CPU, for ever.
    dataset.context._max_num_blocks_in_streaming_gen_buffer = None  # type: ignore[assignment]
    return dataset


def dataset_of_tasks(load: Callable[[ItemT], Iterator[NumpyBatch]], tasks: Sequence[ItemT]) -> ray.data.Dataset:
    """Make a data set with one row for each batch (see `as_row`) of all tasks, in any order.

    A task whose batches are not yet read waits: memory does not grow with what a task loads.

    Args:
        load: makes the batches of a task.
        tasks: at least one.
    """

    def load_task(block: NumpyBatch) -> Iterator[NumpyBatch]:
        for place in block["id"]:
            yield from map(as_row, load(tasks[int(place)]))

    return _in_decode_pool(
        ray.data.range(len(tasks), override_num_blocks=len(tasks)).map_batches(load_task, batch_size=None)
    )


def _in_decode_pool(dataset: ray.data.Dataset) -> ray.data.Dataset:
    """Let the CPUs of the decode pool make the rows of a data set, each of which is a block at once."""
    dataset.context.execution_options.label_selector = pools.selector("decode")
    dataset.context.enable_progress_bars = False
    dataset.context.target_max_block_size = 1  # bytes
    return dataset


def unpacked(dataset: ray.data.Dataset) -> Iterator[NumpyBatch]:
    """Yield the batches that are the rows of a data set."""
    return map(from_row, dataset.iter_batches(batch_size=None, prefetch_batches=1))


def unpacked_of_actors(dataset: ray.data.Dataset) -> Iterator[NumpyBatch]:
    """Yield as `unpacked` from a data set whose last step runs in actors; they start before the first batch."""
    batches = unpacked(dataset)
    with quiet_start_of_actors():
        first = list(itertools.islice(batches, 1))
    yield from itertools.chain(first, batches)


def batches_a_task(*, num_clips: int, bytes_a_clip: int) -> int:
    """How many batches of `num_clips` clips one task decodes."""
    a_cpu = pools.object_store_bytes("decode") / max(1.0, pools.cpus("decode"))  # 0 before the first node is there
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
