"""Timelines, annotated copies and explanations of predicted videos are made by tasks of Ray, one for each video."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from pipelines.predict.config import PredictConfig
from pipelines.predict.ledger import Ledger, PredictedVideo
from pipelines.predict.outcome import VideoOutcome
from pipelines.predict.parts import decoder_of_process
from pipelines.predict.video_files import VideoFiles, folder_of
from pipelines.predict.videos import NamedVideo
from pipelines.prepare.shard_task import limits_of
from pipelines.runtime import pools
from t3d_core.errors import describe_error
from t3d_core.prediction.video_prediction import VideoPrediction
from t3d_core.training.checkpoint import LoadedModel
from t3d_core.video.clip_reader import ViewSampling
from t3d_core.video.guard import DecoderKilledError

# Tasks that wait for each CPU, so that none is idle while the driver reads the next prediction.
_TASKS_A_CPU = 2


def make_files_on_ray(
    videos: Sequence[NamedVideo], loaded: LoadedModel, sampling: ViewSampling, ledger: Ledger, config: PredictConfig
) -> Iterator[VideoOutcome]:
    """Make the files of videos that have predictions, on the CPUs of the decode pool; yield each video when it is done.

    The network that explains a clip runs on a CPU.
    """
    make = ray.remote(_make_files).options(num_cpus=1, label_selector=pools.selector("decode"))
    common = ray.put((loaded, sampling, config))
    calls = (
        (make.remote(common, video, ledger.prediction_of(video.name), folder_of(ledger.folder, video.name)), video)
        for video in videos
    )
    limit = _TASKS_A_CPU * max(1, round(pools.cpus("decode")))
    running = dict(itertools.islice(calls, limit))
    while running:
        done, _ = ray.wait(list(running))
        ended = [(task, running.pop(task)) for task in done]
        running |= dict(itertools.islice(calls, len(done)))
        for task, video in ended:
            try:
                yield ray.get(task)
            except RayTaskError:  # our own mistake
                raise
            except RayError as error:  # the task was killed, again and again
                result = PredictedVideo(video.name, ledger.prediction_of(video.name))
                yield VideoOutcome(result, fault=describe_error(error))


def _make_files(
    common: tuple[LoadedModel, ViewSampling, PredictConfig],
    video: NamedVideo,
    prediction: VideoPrediction,
    folder: Path,
) -> VideoOutcome:
    loaded, sampling, config = common
    result = PredictedVideo(video.name, prediction)
    decoder = decoder_of_process(limits_of(config.guard))
    files = VideoFiles(config, loaded.model, torch.device("cpu"), loaded.card, sampling, decoder)
    try:
        with video.open(max_bytes=int(config.guard.source_gib * 2**30)) as file:
            return VideoOutcome(result, files.write(folder, file.path, prediction, title=video.name))
    except (ValueError, DecoderKilledError, OSError) as error:
        return VideoOutcome(result, fault=describe_error(error))
