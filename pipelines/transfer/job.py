"""Unlabelled shards and a frozen ImageNet 2D network become the initial weights of a 3D network (paper 3.2, 4.5)."""

from dataclasses import replace
from functools import partial

import numpy as np

from pipelines.networks.inflated import inflated_net
from pipelines.networks.lineage import lineage_of, step_of
from pipelines.networks.weights import card_of, check_network
from pipelines.prepare.make import prepared_shards
from pipelines.runtime.files import whole_file
from pipelines.runtime.paths import input_path, output_path
from pipelines.runtime.pictures import optional_picture
from pipelines.settings.build import changed
from pipelines.shards.index import ShardIndex, load_index
from pipelines.shards.selection import drawn_sources, hold_out, share_of_classes
from pipelines.tracking.metric_log import read_curves
from pipelines.training.run import fit
from pipelines.training.run_folder import TERMINAL, Launch, RunFolder, check_surroundings, metrics_file, open_run
from pipelines.transfer.config import ProbeConfig, TransferConfig
from pipelines.transfer.keys import write_keys
from pipelines.transfer.plot import plot_checks
from pipelines.transfer.stage import CorrespondenceStage, TwinStage, teacher_of, twin_of
from pipelines.transfer.summary import describe_transfer
from pipelines.transfer.teacher_pass import cached_features
from t3d_core.errors import UserError
from t3d_core.evaluation.representation import check_probe
from t3d_core.training.checkpoint import save_weights
from t3d_core.transfer.frame_targets import check_num_frames
from t3d_core.transfer.teacher import check_teacher


def run_transfer(config: TransferConfig, launch: Launch = TERMINAL) -> str:
    """Teach a student with the settings in `config`; return the closing summary.

    Raises:
        UserError: settings, shards or a teacher that cannot work, before any work.
    """
    config = _with_absolute_weights(config)
    card = card_of(config.model, config.clip, class_names=())
    check_network(card, batch_size=config.smallest_batch())
    is_twin = config.objective == "frame_regression"
    if is_twin:
        twin_of(card)
    inflated = None if config.inflate_from is None else inflated_net(config.inflate_from, card, seed=config.seed)
    # A wrong teacher is reported here, not after an hour of preparing.
    what, teacher = f"teacher {config.teacher.weights or config.teacher.kind}", teacher_of(config.teacher)
    check_num_frames(config.teacher.target, config.teacher.num_frames or config.clip.num_frames)
    check_teacher(teacher, crop_size=config.teacher.crop_size, what=what)
    storage = output_path(config.storage)
    folders = prepared_shards(config.data, storage=storage, before_work=partial(check_surroundings, config))
    has_fps = config.clip.seconds_per_frame is not None
    index = load_index(folders, fold=config.data.fold, splits=["train"], has_fps=has_fps)
    # A single source held out would have no negative pair.
    train_index, val_index = hold_out(index, fraction=config.data.holdout_fraction, seed=config.seed, at_least=2)
    if config.data.num_sources is not None:
        train_index = drawn_sources(train_index, config.data.num_sources)
    _check_sources(train_index, config)
    # The whole index, because cached features are computed of held-out rows too.
    step = step_of("transfer", folders, index, fold=config.data.fold, is_labelled=False)
    card = replace(card, lineage=(*lineage_of(None, config.inflate_from).steps, step))
    stage = (TwinStage if is_twin else CorrespondenceStage)(
        config, card, train_index, val_index, _load_probe(config.probe, has_fps=has_fps)
    )
    check_surroundings(config, read=folders)
    with open_run(stage, kind="transfer", shards=folders, tags=launch.tags, run_name=launch.run_name) as folder:
        if folder.summary is not None:
            return folder.summary
        stage = replace(stage, card=card.of_run(folder.run.run_id))
        if inflated is not None:
            initial = folder.path / "initial.safetensors"  # where every node finds it
            save_weights(inflated, initial, card=card)
            stage = replace(stage, init_from=initial)
        if config.cache is not None:
            features = cached_features(stage.loader(index), teacher, config, config.cache, folder.run)
            stage = replace(stage, features=features)
            if config.has_keys():
                keys = folder.path / "keys.safetensors"  # as the weights, where every node finds it
                if not keys.is_file():
                    loader, target = stage.loader(train_index), config.teacher.target
                    write_keys(keys, loader, features, config.keys, target=target, seed=config.seed)
                stage = replace(stage, keys=keys)
        finished = fit(stage, folder, launch)
        _plot_checks(folder)
        num_sources = len(np.unique(val_index.source_N))
        is_labelled = bool(train_index.class_names)
        summary = describe_transfer(config, finished, folders, num_sources=num_sources, is_labelled=is_labelled)
        return folder.close(summary)


def _plot_checks(folder: RunFolder) -> None:
    """Draw the curves of the checks, and keep the picture in the run's folder and in MLflow."""
    picture = folder.path / "checks.png"
    with optional_picture(picture.name):
        picture.unlink(missing_ok=True)  # of the run before it was interrupted
        curves = read_curves(metrics_file(folder.path))
        if any(name.startswith(("check/", "probe/")) for name in curves):
            with whole_file(picture) as partial_file:
                partial_file.write_bytes(plot_checks(curves, title=folder.path.name))
    if picture.is_file():
        folder.run.log_artifact(picture)


def _check_sources(train_index: ShardIndex, config: TransferConfig) -> None:
    num_sources = len(np.unique(train_index.source_N))
    if num_sources < config.global_batch_size:
        raise UserError(
            f"global_batch_size {config.global_batch_size} is more than the {num_sources} source videos to train on, "
            "so every batch would repeat some: lower it, or prepare more videos"
        )


def _load_probe(config: ProbeConfig, *, has_fps: bool) -> ShardIndex | None:
    """The labelled rows of the probe.

    Raises:
        UserError: they cannot be read, have no labels, or a class has only one source.
    """
    if not config.shards:
        return None
    folders = [input_path(path) for path in config.shards]
    index = load_index(folders, fold=config.fold, splits=["train"], has_fps=has_fps)
    if not index.class_names:
        raise UserError(f"probe.shards {[str(path) for path in config.shards]} have no labels: prepare a labelled set")
    index = share_of_classes(index, min(1.0, config.max_videos / len(index)))
    try:
        check_probe(index.label_N, index.source_N)
    except UserError as error:
        raise UserError(f"probe.shards {[str(path) for path in config.shards]}, split train: {error}") from error
    return index


def _with_absolute_weights(config: TransferConfig) -> TransferConfig:
    """Make the path of the weights absolute, because workers run in other folders than the user."""
    if config.teacher.weights is None:
        return config
    return changed(config, {"teacher.weights": str(input_path(config.teacher.weights))})
