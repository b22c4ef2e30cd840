"""A loaded batch goes to the device of the network."""

import torch

from pipelines.clips.batch import NumpyBatch


def to_device(batch: NumpyBatch, device: torch.device) -> dict[str, torch.Tensor]:
    """Copy the arrays of a batch, except its reasons, to `device`; dtypes and shapes stay."""
    arrays = {name: array for name, array in batch.items() if name != "reason_B"}
    return {name: torch.from_numpy(array.copy()).to(device) for name, array in arrays.items()}
