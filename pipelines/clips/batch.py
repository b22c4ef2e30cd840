"""A loaded batch, and which of its clips could be read.

Legend: B clips of a batch.
"""

from collections.abc import Iterator

import numpy as np

NumpyBatch = dict[str, np.ndarray]


def is_read(batch: NumpyBatch) -> np.ndarray:
    """Which clips were read and decoded, (B,) bool: those without a reason in `reason_B`."""
    return batch["reason_B"] == ""


def readable(batch: NumpyBatch) -> NumpyBatch:
    """The clips of a batch that were read; the batch itself if all were."""
    is_read_B = is_read(batch)
    return batch if is_read_B.all() else {name: values[is_read_B] for name, values in batch.items()}


def unreadable(batch: NumpyBatch) -> Iterator[tuple[int, str]]:
    """The row and the reason of every clip that cannot be read."""
    is_unread_B = ~is_read(batch)
    for row, reason in zip(batch["row_B"][is_unread_B], batch["reason_B"][is_unread_B], strict=True):
        yield int(row), str(reason)
