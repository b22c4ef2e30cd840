"""Labelled shards, and weights to start from or none, become a video classifier (paper 4.4)."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from torch import nn

from pipelines.clips.loader import BatchLoader, NumpyBatch
from pipelines.clips.stream import TrainOrder, batches_a_task, stream, train_batches
from pipelines.configs import TrainConfig
from pipelines.networks.inflated import inflated_net
from pipelines.networks.weights import (
    card_of,
    check_fold,
    check_network,
    clip_config_of,
    differences_of_networks,
    locate_weights,
    model_config_of,
    view_of,
)
from pipelines.prepare.job import prepared_shards
from pipelines.runtime import session
from pipelines.shards.folder import describe_shards
from pipelines.shards.index import ShardIndex, hold_out, load_index, share_of_classes
from pipelines.tracking import runs as tracking
from pipelines.training.run import PEOPLE, Audience, FinishedRun, check_surroundings, copy_whole, fit, open_run
from pipelines.training.stage import random_crop_of
from pipelines.training.worker import Metrics, Worker
from t3d_core.models import build_model
from t3d_core.models.execution import Execution
from t3d_core.training.checkpoint import initialize_from, save_weights
from t3d_core.training.mixing import Mixing
from t3d_core.training.tasks import ClassificationTask, Task
from t3d_core.training.weights_card import WeightsCard, read_card

# Clips of one validation batch at most, which one task decodes.
_VALIDATION_CLIPS = 16


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
            net.freeze_features()
        alphas = self.config.augmentation.model_dump(include={"mixup_alpha", "cutmix_alpha"})
        mixing = Mixing(**alphas, num_classes=len(card.class_names)) if any(alphas.values()) else None
        return ClassificationTask(net, label_smoothing=self.config.label_smoothing, mixing=mixing)

    def train_batches(self, *, steps: range, places: Sequence[range]) -> Iterator[NumpyBatch]:
        """This worker's micro-batches of `steps`."""
        random_crop = random_crop_of(self.config.augmentation)
        loader = BatchLoader(self.train_index, view_of(self.card), random_crop=random_crop)
        return train_batches(loader, self.order, steps=steps, places=places)

    def validation_batches(self, *, rank: int, world_size: int) -> Iterator[NumpyBatch]:
        """Every world_size-th batch of validation rows, from `rank` on."""
        loader = BatchLoader(self.val_index, view_of(self.card))
        size = min(self.config.micro_batch_size or _VALIDATION_CLIPS, _VALIDATION_CLIPS)
        rows = np.arange(len(self.val_index))
        num_batches = -(-len(rows) // size)
        return stream(
            lambda batch: loader.center_batch(rows[batch * size : (batch + 1) * size]),
            range(rank, num_batches, world_size),
            items_a_task=batches_a_task(num_clips=size, bytes_a_clip=loader.bytes_a_clip),
        )

    def examine(self, net: nn.Module, *, task: Task, worker: Worker, execution: Execution) -> Metrics:
        """Nothing: a classifier's accuracy says what it is worth."""
        return {}

    def save_weights(self, net: nn.Module, path: Path) -> None:
        """Write the classifier."""
        save_weights(net, path, card=self.card)


def run_train(config: TrainConfig, audience: Audience = PEOPLE) -> str:
    """Train a classifier, or one for each fold, as `config` says; give the closing summary.

    Raises:
        ValueError: settings, shards or weights that cannot work, before any work.
    """
    if not config.folds:
        return _train_one(config, audience)
    of_folds = {fold: _of_fold(config, fold) for fold in config.folds}
    base = session.base_folder()
    folders = prepared_shards(
        config.data, storage=base / config.storage, before_work=partial(check_surroundings, config)
    )
    for fold, of_fold in of_folds.items():  # before the hours that the first one takes
        load_index(folders, fold=fold, splits=["train"])
        _locate_init(of_fold, base=base)
    for fold, of_fold in of_folds.items():
        print(f"fold {fold}", flush=True)
        print(_train_one(of_fold, audience), flush=True)
    shards = shlex.join(str(path) for path in config.data.shards)
    pattern = config.storage / f"{config.name}-fold{{fold}}"
    return (
        f"next:    python jobs/evaluate.py --folds {' '.join(map(str, config.folds))} --checkpoint "
        f"{shlex.quote(str(pattern))}{f' --data.shards {shards}' if shards else ''}"
    )


def _of_fold(config: TrainConfig, fold: int) -> TrainConfig:
    """The run of one fold, with its own name."""

    def named(text: str | None) -> str | None:
        return text and text.replace("{fold}", str(fold))

    described = {
        "folds": (),
        "name": f"{config.name}-fold{fold}",
        "data": config.data.model_copy(update={"fold": fold}),
        "init_from": named(config.init_from),
        "register": named(config.register),
    }
    return config.model_copy(update=described)


def _train_one(config: TrainConfig, audience: Audience) -> str:
    base = session.base_folder()
    init_from = _locate_init(config, base=base)
    config = _completed_from_weights(config, init_from)
    card = _card_of_run(config, class_names=())
    check_network(card, batch_size=config.smallest_batch())
    if init_from is not None and (differences := differences_of_networks(read_card(init_from), card)):
        print(f"init_from / this run: {'; '.join(differences)}", flush=True)
    inflated = None
    if config.inflate_from is not None:
        inflated = inflated_net(config.inflate_from, _card_of_run(config, class_names=()), seed=config.seed)
    folders = prepared_shards(
        config.data, storage=base / config.storage, before_work=partial(check_surroundings, config)
    )
    stage = build_stage(config, folders, init_from)
    stage.build_task()  # a network or weights that do not fit are told here, not on a worker
    check_surroundings(config, read=folders)
    tags = {**audience.tags, **_origin_of(init_from)}
    with open_run(stage, kind="train", shards=folders, tags=tags, run_name=audience.run_name) as folder:
        if folder.summary is not None:
            return folder.summary
        stage = replace(stage, card=replace(stage.card, run_id=folder.run.run_id))
        initial = folder.path / "initial.safetensors"  # where every node finds it, wherever it came from
        if inflated is not None:
            save_weights(inflated, initial, card=_card_of_run(config, class_names=()))
            stage = replace(stage, init_from=initial)
        elif init_from is not None:
            stage = replace(stage, init_from=copy_whole(init_from, initial))
        finished = fit(stage, folder, audience)
        registered = _log_model(config, finished)
        return folder.close(_summary(config, stage, finished, folders, registered=registered))


def _origin_of(init_from: Path | None) -> dict[str, str]:
    """The tag that names the run whose weights this one starts from."""
    run_id = None if init_from is None else read_card(init_from).run_id
    return {} if run_id is None else {tracking.STARTED_FROM: run_id}


def _locate_init(config: TrainConfig, *, base: Path) -> Path | None:
    if config.init_from is None:
        return None
    tracking_uri = tracking.resolve_tracking_uri(config.tracking.uri, base=base)
    return locate_weights(config.init_from, tracking_uri=tracking_uri)


def _completed_from_weights(config: TrainConfig, init_from: Path | None) -> TrainConfig:
    """Fill in the network and the clip settings that are left to the weights."""
    if init_from is None:
        return config
    card = read_card(init_from)
    described = {"model": config.model or model_config_of(card), "clip": config.clip or clip_config_of(card)}
    return config.model_copy(update=described)


def build_stage(config: TrainConfig, folders: list[Path], init_from: Path | None) -> ClassificationStage:
    """Find the rows to train on and to validate with.

    Args:
        config: the run, its network and clips completed.
        folders: prepared shards.
        init_from: weights to start from.

    Raises:
        ValueError: there are no labelled training rows, or the weights are of another fold of the same videos.
    """
    train_index = load_index(folders, fold=config.data.fold, splits=["train"])
    val_index = load_index(folders, fold=config.data.fold, splits=["val"], may_be_empty=True)
    if not train_index.class_names or (train_index.label_N < 0).any():
        raise ValueError(
            f"data.shards {[str(f) for f in folders]} give no labelled rows of split train in fold {config.data.fold}: "
            "prepare a labelled data set"
        )
    train_index = share_of_classes(train_index, config.data.class_share)
    if not len(val_index):
        train_index, val_index = hold_out(train_index, fraction=config.data.holdout_fraction, seed=config.seed)
    datasets = tuple(describe_shards(folder)["dataset"] for folder in folders)
    if init_from is not None:
        check_fold(read_card(init_from), init_from, datasets=datasets, fold=config.data.fold)
    card = replace(_card_of_run(config, class_names=train_index.class_names), datasets=datasets, fold=config.data.fold)
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
            *finished.describe_losses(),
            f"weights: {finished.weights}",
            f"model:   {registered}",
            f"mlflow:  {finished.run.describe()}",
            f"next:    python jobs/evaluate.py --checkpoint {shlex.quote(str(finished.weights))} "
            f"--data.shards {shards} --data.fold {config.data.fold}",
        ]
    )
