"""A network and a plan of views become one score a video: Ray Data decodes, a pool of actors holds the network.

A batch of views is scored at once, and batches are taken in their order. The same views are therefore scored together
and added in the same order for any number of workers, and every bit of the result is the same.

Legend: B views of a batch, S segments, T frames, H x W pixels, C channels, K classes.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import ray
from tqdm import tqdm

from pipelines.clips.batch import NumpyBatch, is_read, readable, unreadable
from pipelines.clips.stream import as_row, batches_a_task, dataset_of, from_row, unpacked, unpacked_of_actors
from pipelines.clips.views import ViewPlan
from pipelines.evaluate.config import EvaluateConfig
from pipelines.networks.config import ScoringComputeConfig
from pipelines.networks.scorer import ActorScorer
from pipelines.runtime import pools
from t3d_core.errors import UserError
from t3d_core.evaluation.video_scores import VideoScores
from t3d_core.prediction.clip_scorer import ClipScorer
from t3d_core.training.checkpoint import LoadedModel


class Scored(NamedTuple):
    """The scores of the videos, and why some have none (row -> reason)."""

    scores: VideoScores
    failures: dict[int, str]


class Scorer:
    """An actor that holds the network and scores views.

    Its errors come back in `refusal_B` (see `ActorScorer`).
    """

    def __init__(self, loaded: LoadedModel, *, compute: ScoringComputeConfig, batch_size: int, use_gpu: bool) -> None:
        """Set up the network of `loaded` for batches of `batch_size` clips."""
        self._num_classes = len(loaded.card.class_names)
        self._scorer = ActorScorer(loaded, compute=compute, batch_size=batch_size, use_gpu=use_gpu)

    def __call__(self, row: NumpyBatch) -> NumpyBatch:
        """Score a batch that is one row of a data set (see `clips.stream.as_row`)."""
        return as_row(self.score(from_row(row)))

    def score(self, batch: NumpyBatch) -> NumpyBatch:
        """Score the views that could be loaded; NaN for the others."""
        is_loaded_B = is_read(batch)
        score_BK = np.full((len(is_loaded_B), self._num_classes), np.nan, np.float32)

        def fill(scorer: ClipScorer) -> None:
            score_BK[is_loaded_B] = scorer.score(batch["clip_BSTHWC"][is_loaded_B])

        self._scorer.run(fill)
        kept = {name: batch[name] for name in ("row_B", "num_padded_B", "reason_B")}
        return kept | {"score_BK": score_BK, "refusal_B": np.array([self._scorer.refusal] * len(is_loaded_B))}


def score_videos(plan: ViewPlan, loaded: LoadedModel, label_V: np.ndarray, config: EvaluateConfig) -> Scored:
    """Score every view of `plan` and sum the scores by video; a row is a video.

    Raises:
        UserError: a switch of `compute` cannot work here; or clips (with compute.debug) or scores are not finite.
    """
    scores, failures = VideoScores(label_V, len(loaded.card.class_names)), dict[int, str]()
    with tqdm(total=plan.num_views, desc=f"evaluate fold {config.data.fold}", unit="view") as bar:
        for batch in _scored_batches(plan, loaded, config):
            _refuse(batch)
            scores.add(*(readable(batch)[name] for name in ("row_B", "score_BK", "num_padded_B")))
            for row, reason in unreadable(batch):
                failures[row] = reason
                scores.fail(row)
            counts = scores.view_counts()
            bar.set_postfix(top1=f"{counts.num_top1 / max(1, counts.num_views):.3f}", failed=len(failures))
            bar.update(len(batch["row_B"]))
    return Scored(scores, failures)


def _scored_batches(plan: ViewPlan, loaded: LoadedModel, config: EvaluateConfig) -> Iterator[NumpyBatch]:
    if config.num_workers:
        return unpacked_of_actors(_scored_by_actors(plan, loaded, config))
    scorer = Scorer(loaded, **_settings_of_scorer(config))
    return map(scorer.score, unpacked(_decoded(plan, loaded, config)))


def _decoded(plan: ViewPlan, loaded: LoadedModel, config: EvaluateConfig) -> ray.data.Dataset:
    batch_size = max(1, config.batch_size // loaded.card.num_segments)
    num_batches = -(-plan.num_views // batch_size)

    def load(number: int) -> NumpyBatch:
        first = number * batch_size
        return plan.batch(range(first, min(first + batch_size, plan.num_views)))

    items_a_task = batches_a_task(num_clips=batch_size, bytes_a_clip=plan.loader.bytes_a_clip)
    return dataset_of(load, range(num_batches), items_a_task=items_a_task)


def _scored_by_actors(plan: ViewPlan, loaded: LoadedModel, config: EvaluateConfig) -> ray.data.Dataset:
    return _decoded(plan, loaded, config).map_batches(
        Scorer,
        fn_constructor_args=(loaded,),
        fn_constructor_kwargs=_settings_of_scorer(config),
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=config.num_workers),
        num_cpus=config.cpus_per_worker,
        num_gpus=1 if config.use_gpu else 0,
        # Given even when it is empty, unlike for `load`: Ray fuses steps with equal options, and actors would decode.
        label_selector=pools.selector("train"),
    )


def _settings_of_scorer(config: EvaluateConfig) -> dict[str, Any]:
    return {"compute": config.compute, "batch_size": config.batch_size, "use_gpu": config.use_gpu}


def _refuse(batch: NumpyBatch) -> None:
    """Stop when a worker refused its batch, or when a network's weights have become NaN."""
    if refusals := [refusal for refusal in batch["refusal_B"] if refusal]:
        raise UserError(str(refusals[0]))
    is_wrong_B = is_read(batch) & ~np.isfinite(batch["score_BK"]).all(axis=1)
    if is_wrong_B.any():
        raise UserError(
            f"the network gives scores that are not finite (NaN) for {is_wrong_B.sum()} of {len(is_wrong_B)} views, so "
            "its weights are damaged or too large for compute.precision: try --compute.precision fp32, or find the "
            "cause with --compute.debug true"
        )
