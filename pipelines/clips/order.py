"""Which rows each step of a run sees: pure integers, the same on any cluster.

The order of a run is one endless sequence of rows, pass after pass, each pass a permutation that follows from (seed,
pass) alone. Step s takes its next `global_batch_size` rows, worker r of W the r-th part of them:

    pass 0           | pass 1           |
    4 1 0 3 2 5 6    | 0 6 3 5 1 2 4    | ...
    [step 0][step 1] [step 2] ...             nothing dropped between passes, for any number of workers

An epoch is the unit of schedules and validations: a pass, or a stated part of one (such as a tenth of half a million
clips). A run can resume at any step, with any number of workers, and sees the same clips. Only clips that do not fill
the last step of the last epoch are left out. The part of a worker goes through its network in micro-batches (batch
statistics and negative pairs stay within one):

    micro_batch_size 2, 1 worker      [..][..][..]           2 workers   [..][..] | [..]
    micro_batch_size none             [......]                           [...]    | [...]

Legend: N rows of the index.
"""

import functools
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SourceLimit:
    """A limit on the rows of each source video in a pass; each pass draws them anew.

    Attributes:
        source_N: source of each row.
        most: rows of one source in a pass.
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
        num_rows: rows of the index.
        global_batch_size: rows of a step.
        seed: of the order of each pass.
        epoch_share: part of a pass that counts as an epoch, in (0, 1]: one pass is then several epochs.
        limit: of the rows of each source in a pass; None: all rows.
    """

    num_rows: int
    global_batch_size: int
    seed: int
    epoch_share: float = 1.0
    limit: SourceLimit | None = None

    @functools.cached_property
    def rows_a_pass(self) -> int:
        """Rows until the first one may come again."""
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
        """The rows of `step` and the pass of each: two (global_batch_size,) int64 arrays."""
        position = np.arange(step * self.global_batch_size, (step + 1) * self.global_batch_size)
        pass_B, place_B = np.divmod(position, self.rows_a_pass)
        orders = {int(number): _order_of_pass(self, int(number)) for number in np.unique(pass_B)}
        rows = [orders[int(number)][place] for number, place in zip(pass_B, place_B, strict=True)]
        return np.array(rows, np.int64), pass_B


@functools.lru_cache(maxsize=4)  # for millions of rows, drawing it takes longer than decoding the step
def _order_of_pass(order: TrainOrder, number: int) -> np.ndarray:
    order_N = np.random.default_rng([order.seed, number]).permutation(order.num_rows)
    return order_N if order.limit is None else order.limit.first_of(order_N)


def micro_batches(global_batch_size: int, *, size: int | None, rank: int, world_size: int) -> list[range]:
    """The places in the global batch of each micro-batch of this worker.

    Args:
        global_batch_size: clips of a step over all workers.
        size: clips of a micro-batch, which divides the global batch; None: the part of a worker is one micro-batch.
        rank: 0-based number of this worker.
        world_size: number of workers, at most the number of micro-batches (without a size: of clips).
    """
    num_parts = global_batch_size // size if size else global_batch_size
    first, last = (rank * num_parts // world_size, (rank + 1) * num_parts // world_size)
    assert first < last, "checked by the config"
    if size is None:
        return [range(first, last)]
    return [range(number * size, (number + 1) * size) for number in range(first, last)]
