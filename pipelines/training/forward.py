"""A decoded batch goes through a network on this worker's device; floats and colours are made there."""

import torch
from torch import nn

from pipelines.clips.batch import NumpyBatch
from pipelines.clips.config import ClipConfig
from pipelines.training.device_batch import to_device
from t3d_core.models.execution import Execution
from t3d_core.training.tasks import Batch, Task, TaskOutput
from t3d_core.video.augmentation import ColorAugmentation
from t3d_core.video.transforms import normalize_clip

# Random numbers of training have been drawn with this many places of a batch; larger batches have more.
_PLACES = 4_099


class Forward:
    """Runs a task on loaded batches, one after the other."""

    def __init__(
        self,
        task: Task,
        *,
        execution: Execution,
        clip: ClipConfig,
        colors: ColorAugmentation,
        seed: int,
        global_batch_size: int,
        device: torch.device,
    ) -> None:
        """Run `task`, which lives on `device`.

        Args:
            task: gives loss and counts.
            execution: how networks run.
            clip: how clips were taken; gives their mean and std.
            colors: changes of training clips.
            seed: of the run.
            global_batch_size: clips of a step over all workers.
            device: of the task.
        """
        self._task, self._execution, self._clip = task, execution, clip
        self._colors, self._seed, self._device = colors, seed, device
        self._num_places = max(_PLACES, global_batch_size)

    def training(self, net: nn.Module, batch: NumpyBatch, *, step: int, place: range) -> TaskOutput:
        """Run `net` on a micro-batch in new colours.

        Random numbers on the device follow from the step and the micro-batch's place in the global batch. A resumed
        run therefore draws the same numbers, on any number of workers.
        """
        torch.manual_seed((self._seed * 1_000_003 + step) * self._num_places + place.start)
        return self._run(net, batch, is_training=True)

    def validation(self, net: nn.Module, batch: NumpyBatch) -> TaskOutput:
        """Run `net` on a batch as it is."""
        return self._run(net, batch, is_training=False)

    def _run(self, net: nn.Module, batch: NumpyBatch, *, is_training: bool) -> TaskOutput:
        with self._execution.autocast(self._device):
            return self._task(net, self._tensors(batch, is_training=is_training))

    def _tensors(self, batch: NumpyBatch, *, is_training: bool) -> Batch:
        tensors = to_device(batch, self._device)
        clip_BTHWC = tensors.pop("clip_BTHWC")
        if self._clip.num_segments > 1:
            clip_BTHWC = clip_BTHWC.flatten(0, 1)
        if is_training:
            clip_BTHWC = self._colors(clip_BTHWC)
        return tensors | {"clip_BCTHW": normalize_clip(clip_BTHWC, mean=self._clip.mean, std=self._clip.std)}
