"""A classifier on labelled rows: what is trained, on which batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from pipelines.clips.batch import NumpyBatch
from pipelines.clips.loader import BatchLoader
from pipelines.clips.order import TrainOrder
from pipelines.clips.stream import batches_a_task, stream, train_batches
from pipelines.networks.lineage import Lineage, check_holdout, check_lineage, evaluated_by_run, lineage_of, step_of
from pipelines.networks.weights import card_of
from pipelines.shards.index import ShardIndex, load_index
from pipelines.shards.selection import hold_out, share_of_classes, some_sources
from pipelines.shards.video_names import sources_tested_by_fold
from pipelines.train.config import ResolvedTrainConfig, TrainDataConfig
from pipelines.training.stage import random_crop_of
from pipelines.training.worker import Metrics, Worker
from t3d_core.errors import UserError
from t3d_core.models import VideoNet, build_model
from t3d_core.models.execution import Execution
from t3d_core.training.checkpoint import initialize_from, save_weights
from t3d_core.training.lineage import TrainingStep
from t3d_core.training.mirrored_labels import mirrored_classes, mirrored_labels
from t3d_core.training.mixing import Mixing
from t3d_core.training.tasks import ClassificationTask, Task
from t3d_core.training.weights_card import WeightsCard

# Most clips of one validation batch, which one task decodes.
_VALIDATION_CLIPS = 16


@dataclass(frozen=True)
class CheckedRows:
    """The rows of a run: the weights that it starts from were not trained on those that test or validate.

    Attributes:
        train_index: the rows to train on.
        val_index: the rows that validate.
        lineage: of the weights that it will write.
        warnings: about what the weights that it starts from have seen.
    """

    train_index: ShardIndex
    val_index: ShardIndex
    lineage: tuple[TrainingStep, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class ClassificationStage:
    """Trains a classifier on labelled rows; validates on the middle clip of every validation row.

    `warnings` are about what the weights that it starts from have seen.
    """

    config: ResolvedTrainConfig
    card: WeightsCard
    train_index: ShardIndex
    val_index: ShardIndex
    init_from: Path | None
    weights_name: str = "model.safetensors"
    warnings: tuple[str, ...] = ()

    @property
    def order(self) -> TrainOrder:
        """Which rows each step sees."""
        config = self.config
        return TrainOrder(len(self.train_index), config.global_batch_size, config.seed, config.epoch_share)

    def build_task(self) -> Task:
        """Make the network, with given or random weights."""
        card = self.card
        net = build_model(card.model_kind, num_classes=len(card.class_names), **card.model_arguments)
        if self.init_from is not None:
            initialize_from(net, self.init_from, class_names=card.class_names, replace_head=self.config.replace_head)
        net.num_segments = card.num_segments
        if self.config.freeze_backbone:
            net.freeze_backbone()
        alphas = self.config.augmentation.model_dump(include={"mixup_alpha", "cutmix_alpha"})
        mixing = Mixing(**alphas, num_classes=len(card.class_names)) if any(alphas.values()) else None
        return ClassificationTask(net, label_smoothing=self.config.label_smoothing, mixing=mixing)

    def set_trained(self, net: nn.Module, *, step: int) -> bool:
        """Freeze the backbone, statistics included, in the epochs of `freeze_backbone_epochs`; train all afterwards."""
        assert isinstance(net, VideoNet), "built above"
        is_frozen = self.config.freeze_backbone or step < self.order.steps_before(self.config.freeze_backbone_epochs)
        if net.is_frozen == is_frozen:
            return False
        if is_frozen:
            net.freeze_backbone()
        else:
            net.is_frozen = False
            net.requires_grad_(True).train(net.training)
        return True

    def is_frozen(self, net: nn.Module) -> bool:
        """Whether only the head learns now, while batch norms keep their statistics."""
        assert isinstance(net, VideoNet), "built above"
        return net.is_frozen

    def train_batches(self, *, steps: range, places: Sequence[range]) -> Iterator[NumpyBatch]:
        """This worker's micro-batches of `steps`."""
        augmentation, class_names = self.config.augmentation, self.card.class_names
        loader = BatchLoader(
            self.train_index,
            self.card.clip_view(),
            random_crop=random_crop_of(augmentation),
            mirrored_label_K=np.array(mirrored_labels(augmentation.sides(), class_names), np.int64),
        )
        return train_batches(loader, self.order, steps=steps, places=places)

    def validation_batches(self, *, rank: int, world_size: int) -> Iterator[NumpyBatch]:
        """Every world_size-th batch of validation rows, from `rank` on."""
        loader = BatchLoader(self.val_index, self.card.clip_view())
        size = min(self.config.micro_batch_size or _VALIDATION_CLIPS, _VALIDATION_CLIPS)
        rows = np.arange(len(self.val_index))
        num_batches = -(-len(rows) // size)
        return stream(
            lambda batch: loader.center_batch(rows[batch * size : (batch + 1) * size]),
            range(rank, num_batches, world_size),
            items_a_task=batches_a_task(num_clips=size, bytes_a_clip=loader.bytes_a_clip),
        )

    def examine(self, net: nn.Module, *, task: Task, worker: Worker, execution: Execution) -> Metrics:
        """Return nothing, because a classifier's accuracy is enough."""
        return {}

    def save_weights(self, net: nn.Module, path: Path) -> None:
        """Write the classifier."""
        save_weights(net, path, card=self.card)


def build_stage(config: ResolvedTrainConfig, folders: list[Path], init_from: Path | None) -> ClassificationStage:
    """Find the rows to train on and to validate with.

    Args:
        config: the run.
        folders: prepared shards.
        init_from: weights to start from.

    Raises:
        UserError: there are no labelled training rows, the weights were trained on videos that test or validate, or
            `augmentation.flip` names classes that there are not.
    """
    has_fps = config.clip.seconds_per_frame is not None
    train_index = load_index(folders, fold=config.data.fold, splits=["train"], has_fps=has_fps)
    val_index = load_index(folders, fold=config.data.fold, splits=["val"], may_be_empty=True, has_fps=has_fps)
    if not train_index.class_names or (train_index.label_N < 0).any():
        raise UserError(
            f"data.shards {[str(f) for f in folders]} have no labelled rows of split train in fold "
            f"{config.data.fold}: prepare a labelled data set, or choose another --data.fold"
        )
    sides = mirrored_classes(config.augmentation.sides(), train_index.class_names)
    rows = check_rows(config, folders, train_index, val_index, lineage_of(init_from, config.inflate_from))
    card = card_of(config.model, config.clip, class_names=train_index.class_names)
    card = replace(card, lineage=rows.lineage, mirrored_classes=sides)
    return ClassificationStage(config, card, rows.train_index, rows.val_index, init_from, warnings=rows.warnings)


def check_rows(
    config: ResolvedTrainConfig, folders: list[Path], train_index: ShardIndex, val_index: ShardIndex, lineage: Lineage
) -> CheckedRows:
    """Hold rows out if there is no split `val`, and compare all with what the weights were trained on.

    Args:
        config: the run.
        folders: prepared shards.
        train_index: the rows of split `train`.
        val_index: the rows of split `val`, if any.
        lineage: of the weights to start from.

    Raises:
        UserError: the weights were trained on videos that test or validate, or there are fewer sources to train on
            than `data.num_sources`.
    """
    has_val = len(val_index) > 0
    train_index, val_index = rows_to_train_on(config.data, folders, train_index, val_index)
    step = step_of(
        "train",
        folders,
        train_index,
        fold=config.data.fold,
        is_labelled=True,
        held_out=None if has_val else val_index,
        holdout_seed=config.data.holdout_seed,
    )
    unknown_holdout = check_holdout(lineage, step)
    seen = check_lineage(lineage, evaluated_by_run(folders, val_index, fold=config.data.fold))
    return CheckedRows(
        train_index, val_index, (*lineage.steps, step), warnings=tuple(filter(None, (unknown_holdout, seen)))
    )


def rows_to_train_on(
    data: TrainDataConfig, folders: list[Path], train_index: ShardIndex, val_index: ShardIndex
) -> tuple[ShardIndex, ShardIndex]:
    """Take the part of split `train` that `data` asks for; without a split `val`, hold out the rows that validate.

    Args:
        data: which part.
        folders: prepared shards.
        train_index: the rows of split `train`.
        val_index: the rows of split `val`, if any.

    Raises:
        UserError: there are fewer sources to train on than `data.num_sources`.
    """
    train_index = share_of_classes(train_index, data.class_share)
    if not len(val_index):
        train_index, val_index = hold_out(train_index, fraction=data.holdout_fraction, seed=data.holdout_seed)
    if data.num_sources is not None:
        tested = sources_tested_by_fold(folders)
        train_index = some_sources(train_index, data.num_sources, fold=data.fold, tested=tested)
    return train_index, val_index
