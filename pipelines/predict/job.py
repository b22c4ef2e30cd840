"""A trained network and any videos become predictions, on the screen and in a folder; a bad video is one failed row.

Few videos are scored in this process. It needs no Ray, and MLflow only for weights that lie there, so that the first
answer comes quickly. Many videos, or long ones, are scored by workers of Ray (`predict.distributed`). OUTPUT holds the
files that `predict.ledger` lists.
"""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm import tqdm

from pipelines.networks.scorer import make_scorer
from pipelines.networks.weights import check_views, locate_local_weights, locate_weights, newest_run
from pipelines.predict.config import PredictConfig
from pipelines.predict.in_process import predict_in_process
from pipelines.predict.ledger import Ledger, PredictedVideo
from pipelines.predict.outcome import VideoOutcome
from pipelines.predict.parts import PartReader
from pipelines.predict.video_files import VideoFiles, folder_of, wanted_files
from pipelines.predict.videos import NamedVideo, find_videos
from pipelines.prepare.shard_task import limits_of
from pipelines.runtime.files import exclusive_folder
from pipelines.runtime.paths import base_folder, new_name, output_path
from pipelines.settings.terminal import format_summary, seen_from_here
from t3d_core.errors import UserError, describe_error
from t3d_core.prediction.clip_scorer import ClipScorer
from t3d_core.prediction.video_prediction import predict_video
from t3d_core.training.checkpoint import LoadedModel, load_model
from t3d_core.training.weights_card import read_card
from t3d_core.video.clip_reader import ViewSampling
from t3d_core.video.container import VideoError
from t3d_core.video.guard import DecoderKilledError, GuardedDecoder

# So many are scored in this process, and their classes are printed; of more, only the failed ones are.
_FEW_VIDEOS = 20
_FEW_BYTES = 1 << 29


def run_predict(config: PredictConfig) -> str:
    """Classify videos with the settings in `config`; print each, and return the closing summary.

    Raises:
        UserError: inputs, weights or the output folder cannot work, before any video is read; or the network gives
            scores that are not finite. A video that cannot be read is no error.
    """
    videos = find_videos(config.inputs)
    weights = _locate_weights(config)
    card = read_card(weights)
    if not card.class_names:
        _check_needs_no_classes(config, weights)
    check_views(card, weights, num_clips=config.num_clips, num_crops=config.num_crops)
    sampling = ViewSampling(card.clip_view(), config.num_clips, config.stride_seconds, config.num_crops)
    output = output_path(config.output or config.storage / new_name("predict"))
    with exclusive_folder(output, when_taken=_refuse_taken):
        scored_by = {
            "weights_sha256": _digest(weights),
            "sampling": asdict(sampling),
            "batch_size": config.batch_size,
            "compute": config.compute.model_dump(exclude={"debug", "compile"}),
        }
        ledger = Ledger(output, scored_by=scored_by, class_names=card.class_names, features=config.features)
        done = {video.name for video in videos if _is_done(video, ledger, config)}
        if todo := [video for video in videos if video.name not in done]:
            predict_all = _predict_on_ray if _needs_ray(todo, config) else _predict_here
            predict_all(todo, _load(weights, config), sampling, ledger, config)
        tables = ledger.write_parquet()
    return _summary(videos, ledger, config, tables=tables, weights=weights, num_before=len(done))


def _locate_weights(config: PredictConfig) -> Path:
    where = config.model or str(newest_run(base_folder() / config.storage, setting="model"))
    if local := locate_local_weights(where):
        return local
    # Imported only here: MLflow takes seconds, and a file needs none of it.
    from pipelines.runtime.job_run import tracking_uri_of

    return locate_weights(where, tracking_uri=tracking_uri_of(config.tracking))


def _check_needs_no_classes(config: PredictConfig, weights: Path) -> None:
    """Refuse to give labels, or what is made of them.

    Raises:
        UserError: features are not asked for, or not alone.
    """
    if config.features is None:
        raise UserError(
            f"model {weights} has no classes (a transfer's student): give --features video for its features, or train "
            "it first, jobs/train.py"
        )
    if wanted := wanted_files(config):
        raise UserError(f"{', '.join(wanted)} need classes, and model {weights} has none: leave these settings out")


def _load(weights: Path, config: PredictConfig) -> LoadedModel:
    loaded = load_model(weights)
    if config.compute.transition_forms is not None:
        loaded.model.set_transition_forms(config.compute.transition_forms)
    return loaded


def _scorer(loaded: LoadedModel, config: PredictConfig) -> ClipScorer:
    use_gpu = torch.cuda.is_available() if config.use_gpu is None else config.use_gpu
    if use_gpu and not torch.cuda.is_available():
        raise UserError("use_gpu true, but PyTorch finds no GPU on this machine: leave it out, or give false")
    return make_scorer(loaded, compute=config.compute, batch_size=config.batch_size, use_gpu=use_gpu)


def _needs_ray(videos: Sequence[NamedVideo], config: PredictConfig) -> bool:
    """Whether the videos are scored by workers of Ray, which takes some seconds to start."""
    if config.num_workers is not None:
        return config.num_workers > 0
    return len(videos) > _FEW_VIDEOS or sum(video.num_bytes for video in videos) > _FEW_BYTES


def _is_done(video: NamedVideo, ledger: Ledger, config: PredictConfig) -> bool:
    """Whether a video has a prediction, and all that is asked for besides."""
    return ledger.is_complete(video.name) and _has_files(video, ledger, config)


def _has_files(video: NamedVideo, ledger: Ledger, config: PredictConfig) -> bool:
    folder = folder_of(ledger.folder, video.name)
    return all((folder / name).exists() for name in wanted_files(config))


def _predict_here(
    videos: Sequence[NamedVideo], loaded: LoadedModel, sampling: ViewSampling, ledger: Ledger, config: PredictConfig
) -> None:
    """Predict videos in this process, and make the files that are asked for."""
    scorer = _scorer(loaded, config)
    if not wanted_files(config):  # files are made of one video after the other
        limits, max_bytes = limits_of(config.guard), int(config.guard.source_gib * 2**30)
        reader = PartReader(sampling, batch_size=scorer.num_views, limits=limits, max_source_bytes=max_bytes)
        results = predict_in_process(videos, scorer, reader, with_features=config.features is not None)
        _report((_enter(result, ledger) for result in results), ledger, config, num_videos=len(videos))
        return
    with GuardedDecoder(limits_of(config.guard)) as decoder:
        files = VideoFiles(config, loaded.model, scorer.device, loaded.card, sampling, decoder)
        outcomes = (_predict(video, scorer, files, ledger) for video in videos)
        _report(outcomes, ledger, config, num_videos=len(videos))


def _predict_on_ray(
    videos: Sequence[NamedVideo], loaded: LoadedModel, sampling: ViewSampling, ledger: Ledger, config: PredictConfig
) -> None:
    """As `_predict_here`, with workers of Ray."""
    # Imported only here: Ray takes a second, and few videos need none of it.
    from pipelines.predict.distributed import connect_workers, predict_on_ray
    from pipelines.predict.file_tasks import make_files_on_ray

    workers = connect_workers(videos, config, written=ledger.folder if wanted_files(config) else None)
    print(f"on Ray: {workers.describe()}", flush=True)
    unscored = [video for video in videos if not ledger.is_complete(video.name)]
    results = predict_on_ray(unscored, loaded, sampling, config, workers)
    entered = (_enter(result, ledger) for result in results)
    if not wanted_files(config):
        _report(entered, ledger, config, num_videos=len(unscored))
        return
    _report(entered, ledger, config, num_videos=len(unscored), are_shown=False)  # they are, with their files
    without_files = [each for each in videos if each.name in ledger.done and not _has_files(each, ledger, config)]
    made = make_files_on_ray(without_files, loaded, sampling, ledger, config)
    _report(made, ledger, config, num_videos=len(without_files), what="files")


def _report(
    outcomes: Iterable[VideoOutcome],
    ledger: Ledger,
    config: PredictConfig,
    *,
    num_videos: int,
    what: str = "predict",
    are_shown: bool = True,
) -> None:
    """Show outcomes as they come, of many videos only what went wrong."""
    is_short = num_videos <= _FEW_VIDEOS
    with tqdm(total=num_videos, desc=what, unit="video", disable=is_short) as bar:
        for outcome in outcomes:
            if (is_short and are_shown) or outcome.fault or outcome.result.prediction is None:
                bar.write(seen_from_here(outcome.describe(ledger.class_names, top=config.top)))
            bar.update()


def _enter(result: PredictedVideo, ledger: Ledger) -> VideoOutcome:
    if result.prediction is None and result.video in ledger.done:  # a prediction that was made before stays
        return VideoOutcome(PredictedVideo(result.video, ledger.prediction_of(result.video)), fault=result.reason)
    ledger.append(result)
    return VideoOutcome(result)


def _predict(video: NamedVideo, scorer: ClipScorer, files: VideoFiles, ledger: Ledger) -> VideoOutcome:
    """Predict a video and enter it, unless that was done before, and make its files."""
    before = ledger.prediction_of(video.name) if ledger.is_complete(video.name) else None
    with ExitStack() as stack:
        try:
            file = stack.enter_context(video.open(max_bytes=int(files.config.guard.source_gib * 2**30)))
            with_features = files.config.features is not None
            prediction = before or predict_video(
                file.path, scorer, files.sampling, decoder=files.decoder, with_features=with_features
            )
        except (VideoError, DecoderKilledError, OSError) as error:
            return _enter(PredictedVideo(video.name, reason=describe_error(error)), ledger)
        result = PredictedVideo(video.name, prediction)
        if before is None:
            ledger.append(result)
        folder = folder_of(ledger.folder, video.name)
        try:
            return VideoOutcome(result, files.write(folder, file.path, prediction, title=video.name))
        except (ValueError, DecoderKilledError, OSError) as error:
            return VideoOutcome(result, fault=describe_error(error))


def _summary(
    videos: Sequence[NamedVideo],
    ledger: Ledger,
    config: PredictConfig,
    *,
    tables: Sequence[Path],
    weights: Path,
    num_before: int,
) -> str:
    num_failed = sum(video.name not in ledger.done for video in videos)
    num_without_files = sum(video.name in ledger.done and not _is_done(video, ledger, config) for video in videos)
    num_ok = len(videos) - num_failed
    fields = [("predicted", f"{num_ok:,} of {len(videos):,} videos")]
    if num_before:
        fields.append(("resumed", f"{num_before:,} videos were predicted before"))
    if num_failed:
        fields.append(("failed", f"{num_failed:,} videos; predictions.jsonl has the reason of each"))
    if num_without_files:
        fields.append(("no files", f"{num_without_files:,} videos, for the reasons above; their predictions are there"))
    more = f", videos/*/{', '.join(wanted_files(config))}" if wanted_files(config) else ""
    names = ", ".join([str(tables[0]), *(table.name for table in tables[1:]), ledger.jsonl.name])
    fields += [("model", str(weights)), ("files", names + more)]
    return format_summary(fields)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_taken(holder: str) -> None:
    raise UserError(f"the output folder is written by {holder}: wait for it, or give another --output")
