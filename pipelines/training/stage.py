"""What is trained on which batches: the part of a training run in which transfer and classification differ."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from torch import nn

from pipelines.clips.batch import NumpyBatch
from pipelines.clips.config import AugmentationConfig
from pipelines.clips.loader import RandomCrop
from pipelines.clips.order import TrainOrder
from pipelines.shards.index import ShardIndex
from pipelines.training.config import RunConfig
from pipelines.training.worker import Metrics, Worker
from t3d_core.models.execution import Execution
from t3d_core.training.tasks import Task
from t3d_core.training.weights_card import WeightsCard


class Stage(Protocol):
    """One kind of training, on given rows."""

    @property
    def config(self) -> RunConfig:
        """Settings of the run."""

    @property
    def card(self) -> WeightsCard:
        """The network and its clips."""

    @property
    def weights_name(self) -> str:
        """File name of the result."""

    @property
    def train_index(self) -> ShardIndex:
        """The rows that are trained on."""

    @property
    def val_index(self) -> ShardIndex:
        """The rows that validate."""

    @property
    def order(self) -> TrainOrder:
        """Which rows each step sees."""

    def build_task(self) -> Task:
        """Make the network and its loss, with initial weights, on the CPU."""

    def set_trained(self, net: nn.Module, *, step: int) -> bool:
        """Choose which parameters of the task's network `step` (0-based) trains; return whether that changed."""

    def is_frozen(self, net: nn.Module) -> bool:
        """Whether the task's network keeps the statistics of its batch norms in the steps that come now."""

    def train_batches(self, *, steps: range, places: Sequence[range]) -> Iterator[NumpyBatch]:
        """This worker's micro-batches of `steps`, at its places in the global batch."""

    def validation_batches(self, *, rank: int, world_size: int) -> Iterator[NumpyBatch]:
        """This worker's share of the validation batches; the same batches for any number of workers."""

    def examine(self, net: nn.Module, *, task: Task, worker: Worker, execution: Execution) -> Metrics:
        """Measure in validation what the task's counts do not show; every worker takes part and gets the same metrics.

        Args:
            net: the network that is validated.
            task: of the run.
            worker: on which device, with which others.
            execution: how networks run.
        """

    def save_weights(self, net: nn.Module, path: Path) -> None:
        """Write the part of the task's network that is kept, as a self-describing weights file."""


def random_crop_of(augmentation: AugmentationConfig) -> RandomCrop:
    """How the CPU workers cut and mirror clips; the training device does the rest of the section."""
    return RandomCrop(crop=augmentation.crop, min_area=augmentation.min_area, flip=bool(augmentation.flip))
