"""Unlabelled shards and a frozen ImageNet 2D network become the initial weights of a 3D network (paper 3.2, 4.5)."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from pipelines import session
from pipelines.batches import TrainOrder, batches_a_task, stream, train_batches
from pipelines.clip_loader import BatchLoader, NumpyBatch, TeacherView
from pipelines.configs import ExportedTeacherConfig, TeacherConfig, TransferConfig
from pipelines.prepare import prepared_shards
from pipelines.shard_index import ShardIndex, hold_out, load_index
from pipelines.stage import random_crop_of
from pipelines.training_run import FinishedRun, fit, open_run
from pipelines.weights import card_of, check_network, view_of
from t3d_core.models import build_model
from t3d_core.training.checkpoint import save_weights
from t3d_core.training.tasks import CorrespondenceTask, Task
from t3d_core.training.weights_card import WeightsCard
from t3d_core.transfer.correspondence import CorrespondenceNet
from t3d_core.transfer.teacher import FrozenTeacher, build_teacher, check_teacher, load_exported_teacher
from t3d_core.video.cropping import default_short_side

# Seeds of held-out clips stand where no epoch of training can reach.
_HOLDOUT_EPOCH = 2**31


@dataclass(frozen=True)
class CorrespondenceStage:
    """Trains a student by image-video correspondence; validates on pairs of held-out source videos."""

    config: TransferConfig
    card: WeightsCard
    train_index: ShardIndex
    val_index: ShardIndex
    weights_name: str = "student.safetensors"

    @property
    def order(self) -> TrainOrder:
        """Which rows each step sees."""
        return TrainOrder(len(self.train_index), self.config.global_batch_size, self.config.seed)

    def build_task(self) -> Task:
        """Make the student and the pair head with random weights, and the teacher with ImageNet's."""
        student = build_model(self.card.model_kind, num_classes=0, **self.card.model_arguments)
        teacher = teacher_of(self.config.teacher)
        net = CorrespondenceNet(student, student_dim=student.feature_dim, teacher_dim=teacher.feature_dim)
        return CorrespondenceTask(net, teacher)

    def train_batches(self, *, steps: range, places: Sequence[range]) -> Iterator[NumpyBatch]:
        """This worker's micro-batches of `steps`."""
        return train_batches(self._loader(self.train_index), self.order, steps=steps, places=places)

    def validation_batches(self, *, rank: int, world_size: int) -> Iterator[NumpyBatch]:
        """Every world_size-th batch of held-out clips, from `rank` on; always the same clips in the same batches."""
        loader, config = self._loader(self.val_index), self.config
        size = config.micro_batch_size or config.global_batch_size
        order = TrainOrder(len(self.val_index), size, config.seed)
        num_clips = len(self.val_index) * config.data.holdout_clips_per_row
        num_batches = -(-num_clips // size)

        def load(batch: int) -> NumpyBatch:
            rows, draws = order.rows(batch)
            kept = slice(0, num_clips - batch * size)
            seeds = [
                [config.seed, _HOLDOUT_EPOCH + int(d), int(r)] for r, d in zip(rows[kept], draws[kept], strict=True)
            ]
            return loader.random_batch(rows[kept], seeds)

        items_a_task = batches_a_task(num_clips=size, bytes_a_clip=loader.bytes_a_clip)
        return stream(load, range(rank, num_batches, world_size), items_a_task=items_a_task)

    def save_weights(self, net: nn.Module, path: Path) -> None:
        """Write the student; the pair head and the projection have served."""
        assert isinstance(net, CorrespondenceNet)
        save_weights(net.student, path, card=self.card)

    def _loader(self, index: ShardIndex) -> BatchLoader:
        teacher = self.config.teacher
        view = TeacherView(
            num_frames=teacher.num_frames or self.card.num_frames,
            crop_size=teacher.crop_size,
            short_side=default_short_side(teacher.crop_size),
        )
        return BatchLoader(index, view_of(self.card), view, random_crop_of(self.config.augmentation))


def run_transfer(config: TransferConfig) -> str:
    """Teach a student as `config` says; give the closing summary.

    Raises:
        ValueError: settings, shards or a teacher that cannot work, before any work.
    """
    config = _with_absolute_weights(config)
    card = card_of(config.model, config.clip, class_names=())
    check_network(card, batch_size=config.smallest_batch())
    # What is wrong with the teacher is told here, not after an hour of preparing.
    what = f"teacher {config.teacher.weights or config.teacher.kind}"
    check_teacher(teacher_of(config.teacher), crop_size=config.teacher.crop_size, what=what)
    folders = prepared_shards(config.data, storage=session.base_folder() / config.storage)
    index = load_index(folders, fold=config.data.fold, splits=["train"])
    # A single source held out would have no negative pair.
    train_index, val_index = hold_out(index, fraction=config.data.holdout_fraction, seed=config.seed, at_least=2)
    stage = CorrespondenceStage(config, card, train_index, val_index)
    session.connect()
    session.check_workers_fit(config.scaling.fewest_workers(), config.scaling.resources_of_worker())
    with open_run(stage, kind="transfer", shards=folders) as folder:
        if folder.summary is not None:
            return folder.summary
        return folder.close(_summary(stage, fit(stage, folder), folders))


def teacher_of(config: TeacherConfig) -> FrozenTeacher:
    """Load the teacher that `config` names.

    Raises:
        ValueError: its weights cannot be had, or do not fit.
    """
    if isinstance(config, ExportedTeacherConfig):
        crop_size, mean, std = config.crop_size, config.mean, config.std
        return load_exported_teacher(config.weights, crop_size=crop_size, mean=mean, std=std)
    return build_teacher(config.kind, weights=config.weights)


def _with_absolute_weights(config: TransferConfig) -> TransferConfig:
    """Workers stand in other folders than the user."""
    if config.teacher.weights is None:
        return config
    teacher = config.teacher.model_copy(update={"weights": session.input_path(config.teacher.weights)})
    return config.model_copy(update={"teacher": teacher})


def _summary(stage: CorrespondenceStage, finished: FinishedRun, folders: list[Path]) -> str:
    num_sources = len(np.unique(stage.val_index.source_N))
    before, after = finished.initial, finished.final
    return "\n".join(
        [
            f"pair accuracy on {num_sources} held-out source videos (chance 0.500): "
            f"{before['pair_accuracy']:.3f} before, {after['pair_accuracy']:.3f} after",
            f"loss {before['loss']:.3f} -> {after['loss']:.3f}; padded frames {after['padded_share']:.1%}; "
            f"clips without a negative pair {after['share_without_partner']:.1%}",
            *finished.describe_losses(),
            f"weights: {finished.weights}",
            f"mlflow:  {finished.run.describe()}",
            f"next:    {_next_command(stage, finished, folders)}",
        ]
    )


def _next_command(stage: CorrespondenceStage, finished: FinishedRun, folders: list[Path]) -> str:
    """Fine-tune from these weights: the network and the clips are those the weights describe."""
    is_labelled = bool(stage.train_index.class_names)
    shards = [str(folder) for folder in folders] if is_labelled else ["LABELLED_SHARDS"]
    command = ["python", "jobs/train.py", "--init_from", str(finished.weights), "--model", "none", "--clip", "none"]
    command += ["--data.shards", *shards]
    if stage.config.storage != TransferConfig.model_fields["storage"].default:
        command += ["--storage", str(stage.config.storage)]
    return shlex.join(command)
