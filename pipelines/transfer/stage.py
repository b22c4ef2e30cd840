"""Correspondence, or the regression of single frames: what is trained, on which batches (paper 3.2)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from pipelines.clips.batch import NumpyBatch
from pipelines.clips.loader import BatchLoader
from pipelines.clips.order import SourceLimit, TrainOrder
from pipelines.clips.stream import batches_a_task, stream, train_batches
from pipelines.shards.index import ShardIndex
from pipelines.training.stage import random_crop_of
from pipelines.training.worker import Metrics, Worker
from pipelines.transfer.checks import PROBE_CLIPS, Examiner
from pipelines.transfer.config import ExportedTeacherConfig, TeacherConfig, TransferConfig
from pipelines.transfer.keys import load_keys
from pipelines.transfer.pair_loader import PairLoader, TeacherView
from pipelines.transfer.teacher_features import FeatureFiles
from t3d_core.models import build_model
from t3d_core.models.execution import Execution
from t3d_core.training.checkpoint import initialize_from, save_weights
from t3d_core.training.correspondence_task import CorrespondenceTask, TransferLosses
from t3d_core.training.tasks import FrameRegressionTask, Task
from t3d_core.training.weights_card import WeightsCard
from t3d_core.transfer.correspondence import CorrespondenceNet
from t3d_core.transfer.inflation import inflate
from t3d_core.transfer.teacher import FrozenTeacher, build_teacher, load_exported_teacher
from t3d_core.transfer.twin import FrameRegressionNet, Twin, build_twin
from t3d_core.video.sizes import default_short_side

# Seeds of held-out clips, beyond every epoch of training.
_HOLDOUT_EPOCH = 2**31


@dataclass(frozen=True)
class CorrespondenceStage:
    """Trains a student by image-video correspondence; validates on pairs of held-out source videos."""

    config: TransferConfig
    card: WeightsCard
    train_index: ShardIndex
    val_index: ShardIndex
    probe_index: ShardIndex | None = None
    features: FeatureFiles | None = None
    keys: Path | None = None
    init_from: Path | None = None
    weights_name: str = "student.safetensors"

    @property
    def order(self) -> TrainOrder:
        """Which rows each step sees."""
        limit = self._limit(self.train_index)
        config = self.config
        return TrainOrder(len(self.train_index), config.global_batch_size, config.seed, config.epoch_share, limit)

    def build_task(self) -> Task:
        """Make the student (random or inflated), random heads, and the teacher unless its features exist."""
        config = self.config
        student = build_model(self.card.model_kind, num_classes=0, **self.card.model_arguments)
        if self.init_from is not None:
            initialize_from(student, self.init_from, class_names=())
        teacher = teacher_of(config.teacher) if self.features is None else None
        keys = None if self.keys is None else load_keys(self.keys, temperature=config.keys.temperature)
        teacher_dim = self.features.feature_dim if self.features else teacher.target_dim if teacher else None
        assert teacher_dim is not None, "one of the two"
        net = CorrespondenceNet(
            student,
            student_dim=student.feature_dim,
            teacher_dim=teacher_dim,
            projection=config.projection,
            norm_features=config.norm_features,
            has_pairs=config.losses.pairs > 0,
            key_dim=None if keys is None else keys.whitening.key_dim,
        )
        return CorrespondenceTask(
            net,
            teacher,
            pairs=config.pairs,
            losses=TransferLosses(**config.losses.model_dump()),
            keys=keys,
            other_time_share=config.other_time_share,
        )

    def set_trained(self, net: nn.Module, *, step: int) -> bool:
        """Tell the network how much of the run is over; all of it is trained in every step."""
        if isinstance(net, CorrespondenceNet):
            net.progress = step / self.order.num_steps(self.config.epochs)
        return False

    def is_frozen(self, net: nn.Module) -> bool:
        """Return false, because all of the student learns."""
        return False

    def train_batches(self, *, steps: range, places: Sequence[range]) -> Iterator[NumpyBatch]:
        """This worker's micro-batches of `steps`."""
        loader = self.loader(self.train_index)
        if self.config.other_time_share and self.config.has_pairs():
            loader = with_other_time(loader)
        return train_batches(loader, self.order, steps=steps, places=places)

    def validation_batches(self, *, rank: int, world_size: int) -> Iterator[NumpyBatch]:
        """Every world_size-th batch of held-out clips, from `rank` on; always the same clips in the same batches."""
        return self._held_out(self.loader(self.val_index), rank=rank, world_size=world_size)

    def examine(self, net: nn.Module, *, task: Task, worker: Worker, execution: Execution) -> Metrics:
        """Measure held-out pairs and features in more ways (see `transfer.checks`)."""
        assert isinstance(net, CorrespondenceNet), "built above"
        assert isinstance(task, CorrespondenceTask), "as the net"
        examiner = Examiner(net, task, worker, execution, self.config.clip)
        metrics: Metrics = {}
        if most := self.config.checks.max_clips:
            loader = with_other_time(self.loader(self.val_index))
            loader = replace(loader, teacher=replace(loader.teacher, is_literal=False))
            held_out = self._held_out(loader, at_most=most, rank=worker.rank, world_size=worker.world_size)
            metrics |= examiner.check_held_out(held_out)
        if self.probe_index is not None:
            view = replace(self.card.clip_view(), num_segments=PROBE_CLIPS)
            metrics |= examiner.probe(BatchLoader(self.probe_index, view))
        return metrics

    def _limit(self, index: ShardIndex) -> SourceLimit | None:
        most = self.config.data.rows_per_source
        return None if most is None else SourceLimit(index.source_N, most)

    def _held_out(
        self, loader: BatchLoader, *, rank: int, world_size: int, at_most: int | None = None
    ) -> Iterator[NumpyBatch]:
        """The held-out clips, or the first `at_most` of them, in batches."""
        config = self.config
        size = config.micro_batch_size or config.global_batch_size
        order = TrainOrder(len(self.val_index), size, config.seed, limit=self._limit(self.val_index))
        num_clips = order.rows_a_pass * config.data.holdout_clips_per_row
        num_clips = num_clips if at_most is None else min(num_clips, at_most)
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
        """Write the student, without the pair head and the projection."""
        assert isinstance(net, CorrespondenceNet)
        save_weights(net.student, path, card=self.card)

    def loader(self, index: ShardIndex) -> PairLoader:
        """The loader that decodes rows of `index` for both networks."""
        teacher, cache = self.config.teacher, self.config.cache
        view = TeacherView(
            num_frames=teacher.num_frames or self.card.num_frames,
            crop_size=teacher.crop_size,
            short_side=default_short_side(teacher.crop_size),
            is_random_crop=teacher.random_crop,
            is_shared_crop=teacher.shared_crop,
            is_literal=self.config.pairs == "literal" and self.config.has_pairs(),
            num_views=None if cache is None else cache.num_views,
            features=self.features,
        )
        return PairLoader(index, self.card.clip_view(), random_crop_of(self.config.augmentation), teacher=view)


@dataclass(frozen=True)
class TwinStage(CorrespondenceStage):
    """Trains the student's 2D twin to predict the teacher's features of frames, on the same clips."""

    weights_name: str = "twin.pt"

    def build_task(self) -> Task:
        """Make the twin with random weights, and the teacher."""
        teacher = teacher_of(self.config.teacher)
        positions = self.loader(self.train_index).teacher_positions.tolist()
        net = FrameRegressionNet(twin_of(self.card), teacher_dim=teacher.feature_dim, positions=positions)
        return FrameRegressionTask(net, teacher)

    def examine(self, net: nn.Module, *, task: Task, worker: Worker, execution: Execution) -> Metrics:
        """Return nothing, because there are no pairs and no features of clips."""
        return {}

    def save_weights(self, net: nn.Module, path: Path) -> None:
        """Write the twin's state, as `inflate_from` takes it."""
        assert isinstance(net, FrameRegressionNet), "built above"
        torch.save({name: tensor.cpu().contiguous() for name, tensor in net.twin.state_dict().items()}, path)


def with_other_time(loader: PairLoader) -> PairLoader:
    """The loader, which also loads what the teacher sees at another time of each row."""
    return replace(loader, teacher=replace(loader.teacher, has_other_time=True))


def twin_of(card: WeightsCard) -> Twin:
    """Make the 2D twin of a network, and check that it fits.

    Raises:
        UserError: networks of this kind have no twin, or cannot be inflated from it.
    """
    net = build_model(card.model_kind, num_classes=0, **card.model_arguments)
    twin = build_twin(card.model_kind, net)
    inflate(net, twin.network.state_dict())
    return twin


def teacher_of(config: TeacherConfig) -> FrozenTeacher:
    """Load the teacher that `config` names.

    Raises:
        UserError: its weights cannot be loaded, or do not fit.
    """
    if isinstance(config, ExportedTeacherConfig):
        crop_size, mean, std = config.crop_size, config.mean, config.std
        teacher = load_exported_teacher(config.weights, crop_size=crop_size, mean=mean, std=std)
    else:
        teacher = build_teacher(config.kind, weights=config.weights)
    teacher.target = config.target
    return teacher
