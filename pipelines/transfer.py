"""Unlabelled shards and a frozen ImageNet 2D network become the initial weights of a 3D network (paper 3.2, 4.5)."""

import hashlib
import json
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from pipelines import session
from pipelines.batches import TrainOrder, batches_a_task, stream, train_batches
from pipelines.clip_loader import BatchLoader, NumpyBatch, TeacherView
from pipelines.configs import ExportedTeacherConfig, TeacherCacheConfig, TeacherConfig, TransferConfig
from pipelines.prepare import prepared_shards
from pipelines.shard_index import ShardIndex, hold_out, load_index
from pipelines.stage import random_crop_of
from pipelines.teacher_features import FeatureFiles
from pipelines.teacher_pass import run_teacher_pass
from pipelines.training_run import FinishedRun, RunFolder, fit, open_run
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
    features: FeatureFiles | None = None
    weights_name: str = "student.safetensors"

    @property
    def order(self) -> TrainOrder:
        """Which rows each step sees."""
        config = self.config
        return TrainOrder(len(self.train_index), config.global_batch_size, config.seed, config.epoch_share)

    def build_task(self) -> Task:
        """Make the student and the pair head with random weights, and the teacher where its features are not there."""
        student = build_model(self.card.model_kind, num_classes=0, **self.card.model_arguments)
        teacher = teacher_of(self.config.teacher) if self.features is None else None
        known = self.features or teacher
        assert known is not None, "one of the two"
        net = CorrespondenceNet(student, student_dim=student.feature_dim, teacher_dim=known.feature_dim)
        return CorrespondenceTask(net, teacher, pairs=self.config.pairs)

    def train_batches(self, *, steps: range, places: Sequence[range]) -> Iterator[NumpyBatch]:
        """This worker's micro-batches of `steps`."""
        return train_batches(self.loader(self.train_index), self.order, steps=steps, places=places)

    def validation_batches(self, *, rank: int, world_size: int) -> Iterator[NumpyBatch]:
        """Every world_size-th batch of held-out clips, from `rank` on; always the same clips in the same batches."""
        loader, config = self.loader(self.val_index), self.config
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

    def loader(self, index: ShardIndex) -> BatchLoader:
        """What decodes rows of `index` for both networks."""
        teacher, cache = self.config.teacher, self.config.cache
        view = TeacherView(
            num_frames=teacher.num_frames or self.card.num_frames,
            crop_size=teacher.crop_size,
            short_side=default_short_side(teacher.crop_size),
            is_shared_crop=teacher.shared_crop,
            is_literal=self.config.pairs == "literal",
            num_views=None if cache is None else cache.num_views,
            features=self.features,
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
    what, teacher = f"teacher {config.teacher.weights or config.teacher.kind}", teacher_of(config.teacher)
    check_teacher(teacher, crop_size=config.teacher.crop_size, what=what)
    folders = prepared_shards(config.data, storage=session.base_folder() / config.storage)
    index = load_index(folders, fold=config.data.fold, splits=["train"])
    # A single source held out would have no negative pair.
    train_index, val_index = hold_out(index, fraction=config.data.holdout_fraction, seed=config.seed, at_least=2)
    _check_sources(train_index, config)
    stage = CorrespondenceStage(config, card, train_index, val_index)
    session.connect()
    session.check_workers_fit(config.scaling.fewest_workers(), config.scaling.resources_of_worker())
    with open_run(stage, kind="transfer", shards=folders) as folder:
        if folder.summary is not None:
            return folder.summary
        if config.cache is not None:
            stage = replace(stage, features=_cached_features(stage, teacher, index, config.cache, folder))
        return folder.close(_summary(stage, fit(stage, folder), folders))


def _check_sources(train_index: ShardIndex, config: TransferConfig) -> None:
    num_sources = len(np.unique(train_index.source_N))
    if num_sources < config.global_batch_size:
        raise ValueError(
            f"global_batch_size {config.global_batch_size} is more than the {num_sources} source videos to train on, "
            "so that every batch would repeat some: lower it, or prepare more videos"
        )


def _cached_features(
    stage: CorrespondenceStage,
    teacher: FrozenTeacher,
    index: ShardIndex,
    cache: TeacherCacheConfig,
    folder: RunFolder,
) -> FeatureFiles:
    """See that the teacher's features of all rows are there; what is missing is computed now."""
    loader = stage.loader(index)
    fingerprint = _fingerprint_of_features(stage.config, teacher, loader)
    files = FeatureFiles(fingerprint, cache.num_views, teacher.feature_dim)
    session.check_workers_fit(cache.num_workers, {"CPU": cache.cpus_per_worker} | ({"GPU": 1} if cache.use_gpu else {}))
    started = time.monotonic()
    outcome = run_teacher_pass(loader, teacher, files, cache)
    seconds = time.monotonic() - started
    if outcome.num_views:
        views, failed = outcome
        folder.run.log_metrics({"cache/seconds": seconds, "cache/views": views, "cache/failed_rows": failed}, step=0)
        print(f"teacher features: {views} views in {seconds:.0f} s, {failed} rows that cannot be read", flush=True)
    folder.run.set_tags({"teacher_features": fingerprint})
    return files


def _fingerprint_of_features(config: TransferConfig, teacher: FrozenTeacher, loader: BatchLoader) -> str:
    """What the teacher's features follow from, but the shards: teacher, views, and the rows that have some."""
    assert loader.teacher is not None, "a transfer has one"
    view = {name: value for name, value in asdict(loader.teacher).items() if name not in ("features", "is_literal")}
    clip = {name: getattr(loader.clip, name) for name in ("num_frames", "frame_stride", "short_video")}
    crop = asdict(loader.random_crop) if config.teacher.shared_crop else None
    program = config.teacher.weights.read_bytes() if isinstance(config.teacher, ExportedTeacherConfig) else b""
    named = [config.teacher.kind, hashlib.sha256(program).hexdigest(), teacher.fingerprint()]
    described = json.dumps([named, view, clip, crop, config.data.fold], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


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
            f"negatives a positive {after['negatives_per_positive']:.2f}",
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
