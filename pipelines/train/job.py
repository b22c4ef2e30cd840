"""Labelled shards, with or without weights to start from, become a video classifier (paper 4.4)."""

import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path

from pipelines.networks.inflated import inflated_net
from pipelines.networks.weights import (
    card_of,
    check_network,
    clip_config_of,
    differences_of_networks,
    locate_weights,
    model_config_of,
)
from pipelines.prepare.make import prepared_shards
from pipelines.runtime.files import copy_whole
from pipelines.runtime.job_run import tracking_uri_of
from pipelines.runtime.paths import output_path
from pipelines.settings.build import changed
from pipelines.settings.terminal import format_summary, seen_from_here
from pipelines.shards.index import load_index
from pipelines.tracking.models import log_model, register_model
from pipelines.tracking.recorded import HELD_OUT, NOTHING, SEEN_BEFORE, STARTED_FROM
from pipelines.train.config import ResolvedTrainConfig, TrainConfig, resolve
from pipelines.train.stage import ClassificationStage, build_stage
from pipelines.training.run import FinishedRun, describe_padding, fit
from pipelines.training.run_folder import TERMINAL, Launch, check_surroundings, open_run
from t3d_core.training.checkpoint import save_weights
from t3d_core.training.weights_card import read_card


def run_train(config: TrainConfig, launch: Launch = TERMINAL) -> str:
    """Train a classifier, or one for each fold, with the settings in `config`; return the closing summary.

    Raises:
        UserError: settings, shards or weights that cannot work, before any work.
    """
    if not config.folds:
        return _train_one(config, launch)
    of_folds = {fold: _of_fold(config, fold) for fold in config.folds}
    folders = prepared_shards(
        config.data, storage=output_path(config.storage), before_work=partial(check_surroundings, config)
    )
    for fold, of_fold in of_folds.items():  # all folds are checked before the first one takes hours
        load_index(folders, fold=fold, splits=["train"])
        _locate_init(of_fold)
    for fold, of_fold in of_folds.items():
        print(f"fold {fold}", flush=True)
        print(seen_from_here(_train_one(of_fold, launch)), flush=True)
    shards = shlex.join(str(path) for path in config.data.shards)
    pattern = config.storage / f"{config.name}-fold{{fold}}"
    folds = " ".join(map(str, config.folds))
    command = f"python jobs/evaluate.py --folds {folds} --checkpoint {shlex.quote(str(pattern))}"
    return format_summary([("next", f"{command} --data.shards {shards}" if shards else command)])


def _of_fold(config: TrainConfig, fold: int) -> TrainConfig:
    """The run of one fold, with its own name."""

    def named(text: str | None) -> str | None:
        return text and text.replace("{fold}", str(fold))

    of_fold = {
        "folds": (),
        "name": f"{config.name}-fold{fold}",
        "data.fold": fold,
        "init_from": named(config.init_from),
        "register": named(config.register),
    }
    return changed(config, of_fold)


def _train_one(given: TrainConfig, launch: Launch) -> str:
    init_from = _locate_init(given)
    config = _resolved(given, init_from)
    card = card_of(config.model, config.clip, class_names=())
    check_network(card, batch_size=config.smallest_batch())
    if init_from is not None and (differences := differences_of_networks(read_card(init_from), card)):
        print(f"network of init_from / of this run: {'; '.join(differences)}", flush=True)
    inflated = None
    if config.inflate_from is not None:
        inflated = inflated_net(config.inflate_from, card, seed=config.seed)
    folders = prepared_shards(
        config.data, storage=output_path(config.storage), before_work=partial(check_surroundings, config)
    )
    stage = build_stage(config, folders, init_from)
    stage.build_task()  # a network or weights that do not fit are refused here, not on a worker
    check_surroundings(config, read=folders)
    for warning in stage.warnings:
        print(f"WARNING: {warning}", flush=True)
    tags = {**launch.tags, **_origin_of(init_from), **_tags_of(stage)}
    with open_run(stage, kind="train", shards=folders, tags=tags, run_name=launch.run_name) as folder:
        if folder.summary is not None:
            return folder.summary
        stage = replace(stage, card=stage.card.of_run(folder.run.run_id))
        initial = folder.path / "initial.safetensors"  # in the run's folder, so that every node finds it
        if inflated is not None:
            save_weights(inflated, initial, card=card)
            stage = replace(stage, init_from=initial)
        elif init_from is not None:
            stage = replace(stage, init_from=copy_whole(init_from, initial))
        finished = fit(stage, folder, launch)
        registered = _log_model(config, finished)
        return folder.close(_summary(config, stage, finished, folders, registered=registered))


def _origin_of(init_from: Path | None) -> dict[str, str]:
    """The tag that names the run whose weights this one starts from."""
    run_id = None if init_from is None else read_card(init_from).run_id
    return {} if run_id is None else {STARTED_FROM: run_id}


def _tags_of(stage: ClassificationStage) -> dict[str, str]:
    """The tags that name the held-out part, and what the initial weights have seen."""
    seed = stage.card.lineage[-1].holdout_seed
    tags = {HELD_OUT: NOTHING if seed is None else str(seed)}
    return tags | ({SEEN_BEFORE: "; ".join(stage.warnings)} if stage.warnings else {})


def _locate_init(config: TrainConfig) -> Path | None:
    if config.init_from is None:
        return None
    return locate_weights(config.init_from, tracking_uri=tracking_uri_of(config.tracking))


def _resolved(config: TrainConfig, init_from: Path | None) -> ResolvedTrainConfig:
    """Fill in the network and the clips that the weights describe."""
    model, clip = config.model, config.clip
    if init_from is not None and (model is None or clip is None):
        card = read_card(init_from)
        model, clip = model or model_config_of(card), clip or clip_config_of(card)
    return resolve(config, model=model, clip=clip)


def _log_model(config: ResolvedTrainConfig, finished: FinishedRun) -> str:
    model_uri = log_model(finished.run, finished.weights)
    if config.register is None:
        return model_uri
    return register_model(finished.run, model_uri, name=config.register, alias=config.alias)


def _summary(
    config: ResolvedTrainConfig,
    stage: ClassificationStage,
    finished: FinishedRun,
    folders: list[Path],
    *,
    registered: str,
) -> str:
    num_val, before, after = len(stage.val_index), finished.initial, finished.final
    shards = shlex.join(str(path) for path in folders)
    checkpoint = shlex.quote(str(finished.weights))
    return format_summary(
        [
            (
                "top-1",
                f"{before['clip_top1']:.3f} before, {after['clip_top1']:.3f} after: the middle clip of each of "
                f"{num_val} validation videos, chance {1 / len(stage.card.class_names):.3f}",
            ),
            ("loss", f"{before['loss']:.3f} before, {after['loss']:.3f} after{describe_padding(after)}"),
            *finished.describe_unreadable(),
            *(("WARNING", warning) for warning in stage.warnings),
            ("weights", str(finished.weights)),
            ("model", registered),
            ("mlflow", finished.run.describe()),
            (
                "next",
                f"python jobs/evaluate.py --checkpoint {checkpoint} --data.shards {shards} "
                f"--data.fold {config.data.fold}",
            ),
        ]
    )
