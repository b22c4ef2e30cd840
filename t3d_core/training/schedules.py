"""Which learning rates there are (paper 4.4): what settings need of `optimization`, without PyTorch."""

from typing import Literal

ScheduleKind = Literal["constant", "step", "plateau", "cosine", "one_cycle"]


def linearly_scaled(lr: float, *, global_batch_size: int, base_batch_size: int | None) -> float:
    """The learning rate for steps of `global_batch_size` clips, where `lr` is meant for `base_batch_size`.

    Without a base it is `lr` as it stands, whatever the batch.
    """
    return lr if base_batch_size is None else lr * global_batch_size / base_batch_size
