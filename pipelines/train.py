"""Labelled shards, and weights to start from or none, become a video classifier (paper 4.4)."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter

from pipelines import session, tracking
from pipelines.batches import BatchLoader, ClipView, NumpyBatch, TrainOrder, stream, train_batches
from pipelines.configs import ClipConfig, ModelConfig, ScheduleConfig, TrainConfig
from pipelines.prepare import prepared_shards
from pipelines.shards import ShardIndex, hold_out, load_index
from pipelines.training_run import FinishedRun, fit, open_run
from t3d_core.models import build_model
from t3d_core.training.checkpoint import WeightsCard, find_weights, initialize_from, read_card, save_weights
from t3d_core.training.tasks import ClassificationTask, Task


@dataclass(frozen=True)
class ClassificationStage:
    """Trains a classifier on labelled rows; validates on the middle clip of every validation row."""

    config: TrainConfig
    card: WeightsCard
    train_index: ShardIndex
    val_index: ShardIndex
    init_from: Path | None
    weights_name: str = "model.safetensors"

    @property
    def schedule(self) -> ScheduleConfig:
        """How the learning rate changes."""
        return self.config.schedule

    @property
    def order(self) -> TrainOrder:
        """Which rows each step sees."""
        return TrainOrder(len(self.train_index), self.config.global_batch_size, self.config.seed)

    def build_task(self) -> Task:
        """Make the network, with given or random weights."""
        card = self.card
        net = build_model(card.model_kind, num_classes=len(card.class_names), **card.model_arguments)
        if self.init_from is not None:
            initialize_from(net, self.init_from, class_names=card.class_names)
        return ClassificationTask(net)

    def train_batches(self, *, steps: range, rank: int, world_size: int) -> Iterator[NumpyBatch]:
        """This worker's batches of `steps`."""
        loader = BatchLoader(self.train_index, view_of(self.card))
        return train_batches(loader, self.order, steps=steps, rank=rank, world_size=world_size)

    def validation_batches(self, *, rank: int, world_size: int) -> Iterator[NumpyBatch]:
        """Every world_size-th batch of validation rows, from `rank` on."""
        loader, size = BatchLoader(self.val_index, view_of(self.card)), self.config.global_batch_size
        rows = np.arange(len(self.val_index))
        num_batches = -(-len(rows) // size)
        return stream(
            lambda batch: loader.center_batch(rows[batch * size : (batch + 1) * size]),
            range(rank, num_batches, world_size),
        )

    def save_weights(self, task: Task, path: Path) -> None:
        """Write the classifier."""
        save_weights(task.net, path, card=self.card)


def card_of(model: ModelConfig, clip: ClipConfig, *, class_names: tuple[str, ...]) -> WeightsCard:
    """Describe a network and its clips as its weights file will."""
    return WeightsCard(
        model_kind=model.kind,
        model_arguments=model.arguments(),
        class_names=class_names,
        num_frames=clip.num_frames,
        frame_stride=clip.frame_stride,
        short_side=clip.short_side_pixels(),
        crop_size=clip.crop_size,
        short_video=clip.short_video,
        mean=clip.mean,
        std=clip.std,
    )


def check_network(card: WeightsCard) -> None:
    """Send an empty clip through the network on torch's meta device: shapes alone, before any work.

    Raises:
        ValueError: the network cannot have these sizes, or the clip is too small for it.
    """
    with torch.device("meta"):
        net = build_model(card.model_kind, num_classes=0, **card.model_arguments).eval()
        net.forward_features(torch.empty(1, 3, card.num_frames, card.crop_size, card.crop_size))


def view_of(card: WeightsCard) -> ClipView:
    """How a network with this card sees a clip."""
    return ClipView(card.num_frames, card.frame_stride, card.crop_size, card.short_side, card.short_video)


def run_train(config: TrainConfig) -> str:
    """Train a classifier as `config` says; give the closing summary.

    Raises:
        ValueError: settings, shards or weights that cannot work, before any work.
    """
    base = session.base_folder()
    init_from = _locate_init(config, base=base)
    config = _completed_from_weights(config, init_from)
    check_network(_card_of_run(config, class_names=()))
    folders = prepared_shards(config.data, storage=base / config.storage)
    stage = _stage(config, folders, init_from)
    stage.build_task()  # a network or weights that do not fit are told here, not on a worker
    session.connect()
    session.check_workers_fit(config.scaling)
    with open_run(config, stage="train", shards=folders) as folder:
        finished = fit(stage, folder)
        registered = _log_model(config, finished)
    return _summary(config, stage, finished, folders, registered=registered)


def _locate_init(config: TrainConfig, *, base: Path) -> Path | None:
    if config.init_from is None:
        return None
    tracking_uri = tracking.resolve_tracking_uri(config.tracking.uri, base=base)
    return locate_weights(config.init_from, tracking_uri=tracking_uri)


def locate_weights(where: str, *, tracking_uri: str) -> Path:
    """Find the weights file that a user means: a file, a checkpoint or run folder, `runs:/...` or `models:/...`.

    Raises:
        ValueError: nothing is there.
    """
    if where.startswith(("runs:/", "models:/")):
        return tracking.fetch_weights(where, tracking_uri=tracking_uri)
    return find_weights(session.input_path(Path(where)))


def _completed_from_weights(config: TrainConfig, init_from: Path | None) -> TrainConfig:
    """Fill in the network and the clip settings that are left to the weights."""
    if init_from is None:
        return config
    card = read_card(init_from)
    model = TypeAdapter(ModelConfig).validate_python({"kind": card.model_kind, **card.model_arguments})
    clip = ClipConfig(**{name: getattr(card, name) for name in ClipConfig.model_fields})
    return config.model_copy(update={"model": config.model or model, "clip": config.clip or clip})


def _stage(config: TrainConfig, folders: list[Path], init_from: Path | None) -> ClassificationStage:
    train_index = load_index(folders, fold=config.data.fold, splits=["train"])
    val_index = load_index(folders, fold=config.data.fold, splits=["val"])
    if not len(train_index) or not train_index.class_names or (train_index.label_N < 0).any():
        raise ValueError(
            f"data.shards {[str(f) for f in folders]} give no labelled rows of split train in fold {config.data.fold}: "
            "prepare a labelled data set"
        )
    if not len(val_index):
        train_index, val_index = hold_out(train_index, fraction=config.data.holdout_fraction, seed=config.seed)
    card = _card_of_run(config, class_names=train_index.class_names)
    return ClassificationStage(config, card, train_index, val_index, init_from)


def _card_of_run(config: TrainConfig, *, class_names: tuple[str, ...]) -> WeightsCard:
    assert config.model is not None, "completed from the weights, or refused by the config"
    assert config.clip is not None, "as the network"
    return card_of(config.model, config.clip, class_names=class_names)


def _log_model(config: TrainConfig, finished: FinishedRun) -> str:
    model_uri = finished.run.log_model(finished.weights)
    if config.register is None:
        return model_uri
    return tracking.register_model(finished.run, model_uri, name=config.register, alias=config.alias)


def _summary(
    config: TrainConfig, stage: ClassificationStage, finished: FinishedRun, folders: list[Path], *, registered: str
) -> str:
    num_val, before, after = len(stage.val_index), finished.initial, finished.final
    shards = shlex.join(str(path) for path in folders)
    return "\n".join(
        [
            f"validation, middle clip of {num_val} videos: clip_top1 {before['clip_top1']:.3f} before, "
            f"{after['clip_top1']:.3f} after; loss {before['loss']:.3f} -> {after['loss']:.3f}; "
            f"padded frames {after['padded_share']:.1%}",
            f"weights: {finished.weights}",
            f"model:   {registered}",
            f"mlflow:  {finished.run.describe()}",
            f"next:    python jobs/evaluate.py --checkpoint {shlex.quote(str(finished.weights))} "
            f"--data.shards {shards} --data.fold {config.data.fold}",
        ]
    )
