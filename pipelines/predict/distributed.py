"""Many videos become results on Ray Data: CPU workers decode parts of them, and a pool of actors holds the network.

    driver       decode workers, each with a guarded child     model actors           driver
    tasks   -->  views of one or more parts, uint8        -->  scores of a batch -->  results, as videos are complete

Memory is bounded: a worker whose batches wait does not decode, and the driver keeps scores alone. Ray runs the task of
a lost worker again. The results are the same to the last bit for any number of workers, because the bits of a score do
not depend on which views are scored with it (see `ClipScorer`).
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray
import torch

from pipelines.clips.batch import NumpyBatch
from pipelines.clips.stream import as_row, dataset_of_tasks, from_row, unpacked_of_actors
from pipelines.networks.config import ScoringComputeConfig
from pipelines.networks.scorer import ActorScorer
from pipelines.predict.config import PredictConfig
from pipelines.predict.joining import Joining, scored_batch
from pipelines.predict.ledger import PredictedVideo
from pipelines.predict.parts import PartReader, VideoPart, cut_into_parts
from pipelines.predict.videos import NamedVideo
from pipelines.prepare.shard_task import limits_of
from pipelines.prepare.sources import LocalRoot
from pipelines.runtime import pools, session
from pipelines.runtime.shared_storage import check_shared
from t3d_core.errors import UserError
from t3d_core.prediction.clip_scorer import ClipScorer
from t3d_core.training.checkpoint import LoadedModel
from t3d_core.video.clip_reader import ViewSampling

# Videos of one execution of Ray Data: every worker gets the whole list, and the driver its bookkeeping.
_VIDEOS_PER_EXECUTION = 20_000
# Folders that all nodes are asked for.
_MAX_CHECKED_FOLDERS = 100


@dataclass(frozen=True)
class ModelWorkers:
    """The actors that hold the network.

    Attributes:
        count: number of actors.
        num_threads: of the network of each.
        num_cpus: that Ray reserves for each. On CPUs that decoders use too it is half of the threads: whichever of the
            two has to wait for the other leaves its CPUs.
        num_gpus: of each, 0 or 1.
    """

    count: int
    num_threads: int
    num_cpus: float
    num_gpus: int

    def describe(self) -> str:
        """For the screen."""
        workers = "1 model worker" if self.count == 1 else f"{self.count} model workers"
        return f"{workers} with {'a GPU' if self.num_gpus else f'{self.num_threads} CPU threads'} each"


def connect_workers(videos: Sequence[NamedVideo], config: PredictConfig, *, written: Path | None) -> ModelWorkers:
    """Connect to Ray, choose the workers and check that they can work.

    Args:
        videos: that they read.
        config: settings.
        written: folder that they write to, if any.

    Raises:
        UserError: Ray has no room for them, or a node does not see the videos or the folder.
    """
    session.connect()
    workers = choose_workers(config)
    pools.check_workers_fit(workers.count, {"CPU": workers.num_cpus, "GPU": float(workers.num_gpus)})
    folders = {video.root.folder for video in videos if isinstance(video.root, LocalRoot)}
    check_shared(
        written=written,
        read=sorted(itertools.islice(filter(os.path.isdir, folders), _MAX_CHECKED_FOLDERS)),
    )
    return workers


def choose_workers(config: PredictConfig) -> ModelWorkers:
    """The workers that the settings name, or that the cluster has room for."""
    num_gpu_workers = 0 if config.use_gpu is False else pools.room_for_workers({"CPU": 1.0, "GPU": 1.0})
    if config.use_gpu or num_gpu_workers > 0:
        return ModelWorkers(config.num_workers or max(1, num_gpu_workers), num_threads=1, num_cpus=1.0, num_gpus=1)
    # As many threads as one process has: the last bits of a score depend on their number.
    num_cpus, num_threads = pools.cpus("train"), torch.get_num_threads()
    reserved = 1.0 if pools.selector("train") else 0.5  # of each thread
    room = min(int(num_cpus / num_threads), pools.room_for_workers({"CPU": reserved * num_threads}))
    count = config.num_workers or max(1, room)
    if num_cpus:  # else an autoscaler adds the nodes
        num_threads = max(1, min(num_threads, int(num_cpus / count)))
    return ModelWorkers(count, num_threads, num_cpus=reserved * num_threads, num_gpus=0)


def predict_on_ray(
    videos: Sequence[NamedVideo],
    loaded: LoadedModel,
    sampling: ViewSampling,
    config: PredictConfig,
    workers: ModelWorkers,
) -> Iterator[PredictedVideo]:
    """Score videos; yield each when it is complete, in any order.

    Raises:
        UserError: `compute` cannot work here, or the network gives scores that are not finite.
    """
    num_cpus = max(1, round(pools.cpus("decode")))
    for first in range(0, len(videos), _VIDEOS_PER_EXECUTION):
        some = videos[first : first + _VIDEOS_PER_EXECUTION]
        tasks = cut_into_parts(some, is_cut=not sampling.is_spread, num_cpus=num_cpus)
        joining = Joining([video.name for video in some], [*itertools.chain(*tasks)], num_crops=sampling.num_crops)
        for batch in unpacked_of_actors(_scored(some, tasks, loaded, sampling, config, workers)):
            if refusal := str(batch["refusal_1"][0]):
                raise UserError(refusal)
            yield from joining.add(batch)
        yield from joining.lost()


def _scored(
    videos: Sequence[NamedVideo],
    tasks: Sequence[Sequence[VideoPart]],
    loaded: LoadedModel,
    sampling: ViewSampling,
    config: PredictConfig,
    workers: ModelWorkers,
) -> ray.data.Dataset:
    reader = PartReader(
        sampling,
        batch_size=max(1, config.batch_size // loaded.card.num_segments),
        limits=limits_of(config.guard),
        max_source_bytes=int(config.guard.source_gib * 2**30),
    )
    numbers = itertools.count()
    numbered = [[(next(numbers), part) for part in task] for task in tasks]

    def read(task: Sequence[tuple[int, VideoPart]]) -> Iterator[NumpyBatch]:
        return reader.batches([(number, videos[part.video], part.share) for number, part in task])

    return dataset_of_tasks(read, numbered).map_batches(
        PartScorer,
        fn_constructor_args=(loaded,),
        fn_constructor_kwargs={
            "compute": config.compute,
            "batch_size": config.batch_size,
            "num_threads": workers.num_threads,
            "use_gpu": workers.num_gpus > 0,
            "with_features": config.features is not None,
        },
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=workers.count),
        num_cpus=workers.num_cpus,
        num_gpus=workers.num_gpus,
        # Given even when it is empty, unlike for `read`: Ray fuses steps with equal options, and actors would decode.
        label_selector=pools.selector("train"),
    )


class PartScorer:
    """An actor that holds the network and scores batches of views.

    Its errors come back in `refusal_1` (see `ActorScorer`).
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        compute: ScoringComputeConfig,
        batch_size: int,
        num_threads: int,
        use_gpu: bool,
        with_features: bool,
    ) -> None:
        """Set up the network of `loaded` for batches of `batch_size` clips."""
        torch.set_num_threads(num_threads)
        self._with_features = with_features
        self._scorer = ActorScorer(loaded, compute=compute, batch_size=batch_size, use_gpu=use_gpu)

    def __call__(self, row: NumpyBatch) -> NumpyBatch:
        """Score a batch that is one row of a data set (see `clips.stream.as_row`)."""
        batch = from_row(row)

        def add_scores(scorer: ClipScorer) -> None:
            batch.update(scored_batch(batch, scorer, with_features=self._with_features))

        self._scorer.run(add_scores)
        batch.pop("clip_BSTHWC", None)
        return as_row(batch | {"refusal_1": np.array([self._scorer.refusal])})
