"""Scored views come in any order, from parts of many videos; a video whose last view has come goes out as a result.

A view that comes twice, as from a task that was run again on another machine, counts once.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from pipelines.clips.batch import NumpyBatch
from pipelines.predict.ledger import PredictedVideo
from pipelines.predict.parts import PartEnd, VideoPart, ends_of
from t3d_core.prediction.clip_scorer import ClipScorer
from t3d_core.prediction.video_prediction import ViewResults, check_finite, join_views
from t3d_core.video.decoding import ZERO_FRAMES

_LOST = "some of its views were lost with a machine: start the job again"
# Of a view, what its result is made of.
_KEPT = ("place_B", "score_BK", "feature_BD", "start_B", "end_B", "num_padded_B")


def scored_batch(batch: NumpyBatch, scorer: ClipScorer, *, with_features: bool) -> NumpyBatch:
    """Score a batch of `PartReader.batches`: what `Joining.add` takes.

    Raises:
        UserError: the network gives scores or features that are not finite.
    """
    others = {name: values for name, values in batch.items() if name != "clip_BSTHWC"}
    if batch["part_B"][0] < 0:  # it only ends parts
        return others
    scored = scorer.score_with_features(batch["clip_BSTHWC"])
    check_finite(scored)
    kept = {"score_BK": scored.score_BK, "feature_BD": scored.feature_BD if with_features else None}
    return others | {name: values for name, values in kept.items() if values is not None and values.size}


class Joining:
    """Joins the views of videos; in memory are the scores of those that are not yet complete.

    Args:
        names: of the videos.
        parts: all parts of them.
        num_crops: views of each clip.
    """

    def __init__(self, names: Sequence[str], parts: Sequence[VideoPart], *, num_crops: int) -> None:
        self._names, self._parts, self._num_crops = names, parts, num_crops
        self._parts_of: dict[int, list[int]] = {}  # of the videos that are not yet complete
        for number, part in enumerate(parts):
            self._parts_of.setdefault(part.video, []).append(number)
        self._views_of: dict[int, list[NumpyBatch]] = {}  # by part
        self._ends: dict[int, PartEnd] = {}

    def add(self, batch: NumpyBatch) -> Iterator[PredictedVideo]:
        """Add scored views; yield the videos that are complete now."""
        numbers = {end.part for end in ends_of(batch)} | set(batch["part_B"].tolist()) - {-1}
        numbers = {number for number in numbers if self._parts[number].video in self._parts_of}
        for number in numbers:
            is_mine_B = batch["part_B"] == number
            if is_mine_B.any():
                views = {name: batch[name][is_mine_B] for name in _KEPT if name in batch}
                self._views_of.setdefault(number, []).append(views)
        for end in ends_of(batch):
            if end.part in numbers and not self._has_ended_well(end.part):  # also if its task fails when it runs again
                self._ends[end.part] = end
        for video in sorted({self._parts[number].video for number in numbers}):
            if (result := self._result_of(video)) is not None:
                self._forget(video)
                yield result

    def lost(self) -> Iterator[PredictedVideo]:
        """Yield the videos that are not complete, when no more views come."""
        for video in list(self._parts_of):
            self._forget(video)
            yield PredictedVideo(self._names[video], reason=_LOST)

    def _result_of(self, video: int) -> PredictedVideo | None:
        numbers = self._parts_of[video]
        if not all(number in self._ends for number in numbers):
            return None
        num_views = sum(self._ends[number].num_views for number in numbers)
        reasons = [self._ends[number].reason for number in numbers]
        if reason := next(filter(None, reasons), "" if num_views else ZERO_FRAMES):
            return PredictedVideo(self._names[video], reason=reason)
        scored = [self._views(number) for number in numbers if number in self._views_of]
        if sum(len(views.score_BK) for views in scored) < num_views:
            return None
        return PredictedVideo(self._names[video], join_views(scored, num_crops=self._num_crops))

    def _has_ended_well(self, number: int) -> bool:
        return number in self._ends and not self._ends[number].reason

    def _views(self, number: int) -> ViewResults:
        """The views of a part that have come, in order of time."""
        batches = self._views_of[number]
        views = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
        _, first_V = np.unique(views.pop("place_B"), return_index=True)
        views = {name: values[first_V] for name, values in views.items()}
        return ViewResults(
            views.get("score_BK", np.empty((len(first_V), 0), np.float32)),  # of a network without classes
            views.get("feature_BD"),
            views["start_B"],
            views["end_B"],
            int(views["num_padded_B"].sum()),
        )

    def _forget(self, video: int) -> None:
        for number in self._parts_of.pop(video):
            self._views_of.pop(number, None)
            self._ends.pop(number, None)
